//! Entry functions run on an async system.

#[roadshow::main]
fn main() {}
