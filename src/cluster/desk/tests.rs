//! Strangers at a door.
