//! Programs that have the crate under another name, and none of its dependencies.

use std::path::{Path, PathBuf};

use crate::{externs, rustc};

/// Compiles a crate that can only use `externs`.
#[track_caller]
fn compile(source: &str, kind: &str, externs: &[String]) {
    let output = rustc()
        // Metadata is enough: the test is about names, and nothing is linked.
        .args(["--test", "--emit=metadata", "--crate-type", kind, "-Dwarnings", "--out-dir"])
        .arg(env!("CARGO_TARGET_TMPDIR"))
        .args(externs)
        .arg(Path::new("tests/ui/renamed").join(source))
        .output()
        .expect("a compiler is installed");
    assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_program_may_have_the_crate_under_another_name() {
    let externs = externs(&["roadshow"]);
    let renamed: Vec<_> = externs.iter().map(|it| it.replace("--extern=roadshow=", "--extern=rs=")).collect();
    compile("program.rs", "bin", &renamed);
}

#[test]
fn a_program_may_have_the_crate_from_another_that_exports_it() {
    let externs = externs(&["roadshow"]);
    let company = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("libcompany.rmeta");
    let output = rustc()
        .args(["--emit=metadata", "--crate-type=lib", "--crate-name=company", "-Dwarnings", "-o"])
        .arg(&company)
        .args(&externs)
        .arg("tests/ui/renamed/company.rs")
        .output()
        .expect("a compiler is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The crate's dependencies are in the search path, but not known by name.
    let found = externs.into_iter().filter(|argument| argument.starts_with("-L"));
    let knows: Vec<_> = found.chain([format!("--extern=company={}", company.display())]).collect();
    compile("of_company.rs", "bin", &knows);
}
