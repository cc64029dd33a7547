//! A crate that gives what its programs are built on.

pub use roadshow as framework;

pub mod everything {
    pub use roadshow::*;
}

/// A task of its own for each program; it knows where the crate is from here.
#[macro_export]
macro_rules! task_that_doubles {
    ($name:ident) => {
        #[$crate::framework::task(crate = $crate::framework)]
        fn $name(n: u64) -> u64 {
            2 * n
        }
    };
}
