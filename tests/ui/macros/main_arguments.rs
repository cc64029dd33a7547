//! Entry functions have no arguments.

#[roadshow::main]
async fn main(arguments: Vec<String>) {
    drop(arguments);
}
