//! A task that has the name of its module, imported beside it.

mod square {
    #[roadshow::task]
    pub fn square(n: u64) -> u64 {
        n * n
    }
}

use square::square;

fn main() {
    square(2);
}
