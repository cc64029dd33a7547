//! The entry is called by nobody who could pass arguments.

#[roadshow::main]
async fn main(arguments: Vec<String>) {
    drop(arguments);
}
