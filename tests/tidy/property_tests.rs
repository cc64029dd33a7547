//! Checks that the property tests of `src` store their seeds below `tests`.

use super::source::Code;
use super::{check, complain, files_below, lines_with, read, rust_files};

/// Folder of the stored seeds, with a file for each source file.
const SEEDS: &str = "tests/proptest-regressions/";

#[test]
fn property_tests_have_the_shared_configuration() {
    complain(rust_files("src").iter().flat_map(|file| configuration_complaints(file, &read(file))));
}

#[test]
fn stored_seeds_belong_to_a_source_file() {
    // proptest ignores the seeds of a file that was moved or renamed.
    complain(files_below(SEEDS).iter().filter_map(|file| seed_complaint(file, &rust_files("src"))));
}

/// Without the configuration, proptest stores seeds at the project's root.
fn configuration_complaints(file: &str, source: &str) -> Vec<String> {
    let code = Code::of(source);
    let lines: Vec<_> = code.text().lines().collect();
    let is_configured = |line: usize| {
        lines.get(line).is_some_and(|next| next.contains("#![proptest_config(property_tests::"))
    };
    let blocks = lines_with(code.text(), "proptest!").filter(|line| !is_configured(*line));
    blocks
        .map(|line| format!("{file}:{line}: start with `#![proptest_config(property_tests::cases(N))]`"))
        .collect()
}

fn seed_complaint(file: &str, sources: &[String]) -> Option<String> {
    let source = file.strip_prefix(SEEDS)?.strip_suffix(".txt").map(|name| format!("src/{name}.rs"));
    let known = source.is_some_and(|source| sources.contains(&source));
    (!known).then(|| format!("{file}: no source file has these seeds; move them with it"))
}

#[test]
fn the_configuration_check_finds_its_absence() {
    let bare = "proptest! {\n    #[test]\n    fn f() {}\n}";
    let other = "proptest! {\n    #![proptest_config(ProptestConfig::with_cases(8))]\n}";
    let shared = "proptest! {\n    #![proptest_config(property_tests::cases(8))]\n}";
    check(&configuration_complaints("src/a.rs", bare), 1);
    check(&configuration_complaints("src/a.rs", other), 1);
    check(&configuration_complaints("src/a.rs", shared), 0);
}

#[test]
fn the_seed_check_finds_a_renamed_source() {
    let sources = ["src/wire/tests.rs".to_owned()];
    assert_eq!(seed_complaint("tests/proptest-regressions/wire/tests.txt", &sources), None);
    assert!(seed_complaint("tests/proptest-regressions/wire/frame.txt", &sources).is_some());
    assert!(seed_complaint("tests/proptest-regressions/wire/tests.seeds", &sources).is_some());
}
