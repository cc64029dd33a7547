//! A method has a receiver, which stays where it is.

struct Book(String);

impl Book {
    #[roadshow::task]
    fn words(&self) -> usize {
        self.0.split_whitespace().count()
    }
}

fn main() {}
