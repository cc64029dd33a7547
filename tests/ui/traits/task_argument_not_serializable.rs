//! Task whose argument and result cannot be serialized.

struct Book(String);

#[roadshow::task]
fn first_word(book: Book) -> Book {
    book
}

fn main() {}
