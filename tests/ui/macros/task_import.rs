//! Task with the name of its module, imported next to it.

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
