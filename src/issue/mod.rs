//! The only place where a decision becomes a token.
