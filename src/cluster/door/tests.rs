//! Who gets in at a door, and who does not.
