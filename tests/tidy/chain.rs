//! Tables of the page on failures: their functions are in the named files, and their errors on the page of errors.

use std::collections::BTreeMap;

use super::tables::{first_cells, quoted, tables};
use crate::source::Code;
use crate::{check, complain, read, rust_files};

/// Page with the tables.
const PAGE: &str = "docs/failures.md";

/// Enums whose cases the page of errors lists under a heading.
const ERRORS: &[&str] = &["NotDelivered", "OutcomeUnknown", "SpawnError", "TaskError", "PlacementError"];

#[test]
fn the_chain_of_a_failure_is_that_of_the_source() {
    let sources = rust_files("src").into_iter().map(|file| {
        let code = Code::of(&read(&file)).without_tests().text().to_owned();
        (file, code)
    });
    complain(step_complaints(&read(PAGE), &sources.collect()));
    complain(error_complaints(&read(PAGE), &read("docs/errors.md")));
}

/// Steps that name a missing file, or a function that none of their files defines.
fn step_complaints(page: &str, sources: &BTreeMap<String, String>) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut steps = 0;
    for table in
        tables(page).into_iter().filter(|table| table[0].starts_with(&["step".to_owned(), "file".to_owned()]))
    {
        for row in &table[1..] {
            steps += 1;
            let files: Vec<_> = quoted(&row[1]).into_iter().map(|file| (sources.get(&file), file)).collect();
            if files.is_empty() {
                complaints.push(format!("{PAGE}: the step {:?} names no file", row[0]));
            }
            let missing = files.iter().filter(|(code, _)| code.is_none());
            complaints.extend(missing.map(|(_, file)| format!("{PAGE}: there is no file `{file}`")));
            let is_missing = |function: &String| {
                !files.iter().any(|(code, _)| code.is_some_and(|code| defines(code, function)))
            };
            let undefined = quoted(&row[2]).into_iter().filter(is_missing);
            complaints.extend(
                undefined.map(|function| format!("{PAGE}: no file of its step defines `{function}`")),
            );
        }
    }
    // A renamed column would otherwise make the check pass without comparing anything.
    if steps == 0 {
        complaints.push(format!("{PAGE} has no table of steps"));
    }
    complaints
}

/// Returns true if the code has the function `name` of `Type::name`, and mentions the type.
fn defines(code: &str, function: &str) -> bool {
    let (owner, name) = function.rsplit_once("::").unwrap_or(("", function));
    let words: Vec<_> =
        code.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).collect();
    let has_function = words.windows(2).any(|pair| pair == ["fn", name]);
    has_function && (owner.is_empty() || words.contains(&owner))
}

/// Errors such as `NotDelivered::Full` that the page of errors does not list.
fn error_complaints(page: &str, errors: &str) -> Vec<String> {
    let cells = tables(page).into_iter().flatten().flatten();
    let names = cells.flat_map(|cell| quoted(&cell));
    let unknown = names.filter(|name| {
        let case = name.split_once("::").filter(|(of, _)| ERRORS.contains(of));
        case.is_some_and(|(of, case)| !first_cells(errors, &format!("`{of}`")).contains(case))
    });
    unknown.map(|name| format!("{PAGE}: docs/errors.md has no `{name}`")).collect()
}

#[test]
fn the_chain_check_sees_missing_files_functions_and_errors() {
    let sources = BTreeMap::from([("src/a.rs".to_owned(), "impl Peer { fn close(&self) {} }".to_owned())]);
    let steps = |row: &str, expected| {
        let page = format!("| step | file | function |\n|---|---|---|\n| it ends | {row} |\n");
        check(&step_complaints(&page, &sources), expected);
    };
    steps("`src/a.rs` | `Peer::close`, `close`", 0);
    steps("`src/a.rs` | ", 0);
    steps("`src/a.rs` | `Peer::open`, `Host::close`", 2);
    steps("`src/b.rs` | `Peer::close`", 2);
    steps("here | ", 1);
    check(&step_complaints("| step | where |\n|---|---|\n| a | b |\n", &sources), 1);

    let errors = "## `TaskError`\n\n| case | meaning |\n|---|---|\n| `NoWorker` | x |\n";
    let error =
        |name: &str| error_complaints(&format!("| stage | error |\n|---|---|\n| a | {name} |\n"), errors);
    check(&error("`TaskError::NoWorker` with `HostDown`"), 0);
    check(&error("`TaskError::Panicked`"), 1);
}
