//! Shared parts of the fuzz targets: reading an input as a script or a stream, and measuring memory.

mod memory;
mod script;
mod stream;

pub use memory::peak_of;
pub use script::Script;
pub use stream::{Decoded, decode_in_pieces, drain_in_pieces};
