//! The kinds of the group `agentid.dev`, version `v1alpha1`. A leaf: uses no other room.
