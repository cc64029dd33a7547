//! The mistakes that a user can make with the macros, and what the compiler then says.
//!
//! After a change of a text, `TRYBUILD=overwrite cargo test --test ui` writes the new ones; read them.

#[path = "ui/accepted.rs"]
pub mod accepted;

use std::process::Command;

/// The compiler whose own words are in `tests/ui/traits`.
const PHRASED_BY: &str = "rustc 1.95.";

#[test]
fn mistakes_get_readable_errors() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/macros/*.rs");
    // Here the compiler speaks, with notes of ours; it phrases the same thing anew every few versions.
    if rustc_version().starts_with(PHRASED_BY) {
        cases.compile_fail("tests/ui/traits/*.rs");
    }
}

fn rustc_version() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().expect("a test has a compiler beside it");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
