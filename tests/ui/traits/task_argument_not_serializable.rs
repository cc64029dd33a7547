//! A task whose argument and result cannot be turned into bytes.

struct Book(String);

#[roadshow::task]
fn first_word(book: Book) -> Book {
    book
}

fn main() {}
