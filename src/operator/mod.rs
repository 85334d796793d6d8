//! The loop: dirty agents, decide, plan, apply.
