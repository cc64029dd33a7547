//! Entry functions have no options.

#[roadshow::main(workers = 4)]
async fn main() {}
