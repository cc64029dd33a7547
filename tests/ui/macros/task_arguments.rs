//! Arguments and results of a task are sent to another process and back.

#[roadshow::task]
fn borrows(text: &str, words: Vec<&str>) -> usize {
    text.len() + words.len()
}

#[roadshow::task]
fn lends(n: usize) -> &'static str {
    ["zero", "one"][n]
}

#[roadshow::task]
fn unnamed(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.sum()
}

#[roadshow::task]
#[rustfmt::skip]
#[allow(clippy::too_many_arguments)]
fn many(
    _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8,
    _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8,
    last: u8,
) -> u8 {
    last
}

fn main() {}
