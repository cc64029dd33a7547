//! Random events, and what holds after each.
