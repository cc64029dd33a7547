//! Unknown or invalid options of `#[roadshow::task(..)]`.

#[roadshow::task(parallel = 0)]
fn none_at_all() {}

#[roadshow::task(parallel = "many")]
fn uncounted() {}

#[roadshow::task(threads = 4)]
fn misspelled() {}

#[roadshow::task(name = " ")]
fn nameless() {}

fn main() {}
