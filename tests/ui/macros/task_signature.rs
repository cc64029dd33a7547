//! Other signatures that a task cannot have.

#[roadshow::task]
fn longest<'a>(one: &'a str) -> &'a str {
    one
}

#[roadshow::task]
fn forever() -> ! {
    loop {}
}

#[roadshow::task]
fn configured(#[cfg(unix)] n: u64) {
    drop(n);
}

fn main() {}
