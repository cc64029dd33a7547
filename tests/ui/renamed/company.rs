//! Crate that re-exports what its programs are built on.

pub use roadshow as framework;

pub mod everything {
    pub use roadshow::*;
}

/// Defines a task in each program; the path of the crate comes from here.
#[macro_export]
macro_rules! task_that_doubles {
    ($name:ident) => {
        #[$crate::framework::task(crate = $crate::framework)]
        fn $name(n: u64) -> u64 {
            2 * n
        }
    };
}
