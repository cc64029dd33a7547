//! The entry has nothing to configure.

#[roadshow::main(workers = 4)]
async fn main() {}
