//! What exists, what is allowed, what must change. Pure: no I/O, no clock, no randomness.
