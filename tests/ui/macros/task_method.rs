//! Methods have a receiver, which cannot be sent.

struct Book(String);

impl Book {
    #[roadshow::task]
    fn words(&self) -> usize {
        self.0.split_whitespace().count()
    }
}

fn main() {}
