//! Mistakes that a user can make with the macros, and the resulting errors of the compiler.
//!
//! Each `.rs` file below `tests/ui/macros` and `tests/ui/traits` is a program that must not compile, and
//! the `.stderr` file next to it has the errors: place, text, and notes. In `macros` all texts are from this
//! project and have to match exactly. In `traits` they are from the compiler, which changes them every few
//! versions: there the file has the parts that a reader needs, and the rest may differ.
//!
//! The compiler is called with the libraries that were built for this test, which takes a few seconds. A
//! separate project for these programs, as the crate `trybuild` creates one, would build every dependency a
//! second time. The two executables of `executables`, which differ in their messages, are built in the same
//! way.

#[path = "ui/accepted.rs"]
pub mod accepted;
#[path = "ui/executables.rs"]
mod executables;
#[path = "ui/locals.rs"]
mod locals;
#[path = "ui/renamed.rs"]
mod renamed;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::{env, fs};

use serde_json::Value;

/// Dependencies of the programs, as in a user's `Cargo.toml`.
const LIBRARIES: [&str; 3] = ["roadshow", "actix", "serde"];

#[test]
fn errors_of_the_macros_say_what_to_do() {
    check("tests/ui/macros", |actual, expected| actual == expected);
}

#[test]
fn errors_of_the_compiler_say_what_to_do() {
    check("tests/ui/traits", |actual, expected| {
        // The expected lines have to appear in this order, but others may stand between them.
        let mut actual = actual.lines();
        expected.lines().all(|line| actual.any(|other| other == line))
    });
}

/// Compiles each program in `folder`, and compares its errors with the expected ones.
#[track_caller]
fn check(folder: &str, matches: fn(&str, &str) -> bool) {
    let externs = externs(&LIBRARIES);
    let mut failed = Vec::new();
    for program in programs(folder) {
        let actual = errors(&program, &externs);
        let expected = fs::read_to_string(program.with_extension("stderr")).unwrap_or_default();
        if actual.is_empty() {
            failed.push(format!("{} compiles", program.display()));
        } else if expected.is_empty() || !matches(&actual, &expected) {
            failed.push(format!("{}:\n{actual}-- but expected:\n{expected}", program.display()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn programs(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder exists, and tests run in the folder of Cargo.toml");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let mut programs: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "rs")).collect();
    // A wrong path would otherwise pass without compiling anything.
    assert!(!programs.is_empty(), "no programs in {folder}");
    // The order of `read_dir` differs between file systems.
    programs.sort();
    programs
}

/// Returns the compiler's errors about a program; empty if it compiles.
fn errors(program: &Path, externs: &[String]) -> String {
    let output = rustc()
        .args(["--crate-type=bin", "--emit=metadata", "--error-format=json", "--out-dir"])
        .arg(env!("CARGO_TARGET_TMPDIR"))
        .args(externs)
        .arg(program)
        .output()
        .expect("a compiler is installed");
    let output_text = String::from_utf8(output.stderr).expect("the compiler writes UTF-8");
    let diagnostics =
        output_text.lines().map(|line| serde_json::from_str(line).expect("the compiler was asked for JSON"));
    let text: String = diagnostics.map(|diagnostic| show(&diagnostic)).collect();
    assert!(output.status.success() == text.is_empty(), "{}: {output_text}", program.display());
    text
}

/// Formats an error as a line with its place, and a line for each note without a place.
fn show(diagnostic: &Value) -> String {
    let spans = diagnostic["spans"].as_array().map_or(&[][..], Vec::as_slice);
    let Some(place) = spans.iter().find(|span| span["is_primary"] == true) else { return String::new() };
    // Warnings depend on the version of the compiler.
    if diagnostic["level"] != "error" {
        return String::new();
    }
    let first_line =
        |value: &Value| value.as_str().and_then(|text| text.lines().next()).unwrap_or_default().to_owned();
    let message = first_line(&diagnostic["message"]);
    let mut text = format!("{}:{}: {message}\n", place["line_start"], place["column_start"]);
    for child in diagnostic["children"].as_array().into_iter().flatten() {
        let has_place = child["spans"].as_array().is_some_and(|spans| !spans.is_empty());
        if child["level"] == "note" && !has_place {
            text.push_str(&format!("    note: {}\n", first_line(&child["message"])));
        }
    }
    text
}

fn rustc() -> Command {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.arg("--edition=2024");
    rustc
}

/// Messages of cargo about everything that it built for this test.
static BUILT: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let target =
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is a folder of the target folder");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["test", "--no-run", "--test=ui", "--offline", "--message-format=json", "--target-dir"])
        .arg(target);
    // The libraries of this very profile are built already, those of the other are not.
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.output().expect("cargo is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output_text = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    output_text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
});

/// Returns compiler arguments with the paths of the libraries that cargo built for this test.
fn externs(libraries: &[&str]) -> Vec<String> {
    let library = |name: &str| {
        let named =
            |message: &&Value| message["target"]["name"] == name && message["target"]["kind"][0] == "lib";
        let files =
            BUILT.iter().filter(named).filter_map(|message| message["filenames"].as_array()).flatten();
        let mut files = files.filter_map(Value::as_str).filter(|file| file.ends_with(".rlib"));
        files.next().unwrap_or_else(|| panic!("cargo reported no path of {name}")).to_owned()
    };
    let folder = PathBuf::from(library("roadshow"));
    let folder = folder.parent().expect("a file is in a folder").display();
    let libraries = libraries.iter().map(|name| format!("--extern={name}={}", library(name)));
    libraries.chain([format!("-Ldependency={folder}")]).collect()
}
