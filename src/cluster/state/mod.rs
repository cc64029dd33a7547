//! The control plane as a pure state machine: who is where, what runs, what is named.

mod event;
