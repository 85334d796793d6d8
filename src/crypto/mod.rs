//! Keys, JWS, JWK sets. A leaf: uses no other room.
