//! Attributes on items other than functions.

#[roadshow::task]
struct Node;

#[roadshow::main]
const MAIN: u8 = 0;

fn main() {}
