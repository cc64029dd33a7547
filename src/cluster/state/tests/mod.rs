//! The control plane, event by event.
