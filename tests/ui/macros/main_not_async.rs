//! The entry runs on an async system.

#[roadshow::main]
fn main() {}
