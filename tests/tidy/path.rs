//! Table of a message's path on the architecture page: its files exist, and its types are defined.

use std::collections::BTreeSet;

use super::source::Code;

/// Start of the table's header.
const HEADER: &str = "| step |";

/// Columns of the table, in their order.
const COLUMNS: &[&str] = &["step", "file", "type that carries the message", "thread", "lock held"];

/// Files of the project, and types that its source defines.
struct Tree {
    files: BTreeSet<String>,
    types: BTreeSet<String>,
}

/// Rows of the table that name a missing file or type, or none at all.
fn path_complaints(page: &str, tree: &Tree) -> Vec<String> {
    let table = page.lines().skip_while(|line| !line.starts_with(HEADER));
    let mut table = table.take_while(|line| line.starts_with('|')).map(cells);
    // A renamed column would otherwise make the check pass without comparing anything.
    if table.next().is_none_or(|header| header != COLUMNS) {
        return vec![format!("docs/architecture.md has no table with the columns {COLUMNS:?}")];
    }
    table.skip(1).flat_map(|row| row_complaints(&row, tree)).collect()
}

fn row_complaints(row: &[String], tree: &Tree) -> Vec<String> {
    let [step, file, carrier, ..] = row else {
        return vec![format!("docs/architecture.md: a row of the path has {} cells", row.len())];
    };
    let mut wrong = Vec::new();
    let files = quoted(file);
    if files.is_empty() {
        wrong.push("it names no file".to_owned());
    }
    let missing = files.into_iter().filter(|name| !tree.files.contains(*name));
    wrong.extend(missing.map(|name| format!("there is no file `{name}`")));
    if types(carrier).is_empty() {
        wrong.push("it names no type".to_owned());
    }
    let undefined = row.iter().flat_map(|cell| types(cell)).filter(|name| !tree.types.contains(*name));
    wrong.extend(undefined.map(|name| format!("src defines no type `{name}`")));
    wrong.into_iter().map(|what| format!("docs/architecture.md: step {step:?} of the path: {what}")).collect()
}

/// Cells of a row, without the empty texts before its first and after its last `|`.
fn cells(line: &str) -> Vec<String> {
    line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// Texts between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Types among the texts between backticks: `Peer` of `Peer::call`, and nothing of a path or a thread's name.
fn types(cell: &str) -> Vec<&str> {
    let names = quoted(cell).into_iter().filter(|name| name.starts_with(char::is_uppercase));
    names.map(|name| name.split(|c: char| !is_word(c)).next().unwrap_or_default()).collect()
}

/// Structs, enums and traits that a source defines outside of its tests.
fn defined_types(source: &str) -> Vec<String> {
    let code = Code::of(source).without_tests();
    let words: Vec<_> = code.text().split(|c: char| !is_word(c)).filter(|word| !word.is_empty()).collect();
    let definitions = words.windows(2).filter(|pair| matches!(pair[0], "struct" | "enum" | "trait"));
    definitions.map(|pair| pair[1].to_owned()).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check, complain, read, rust_files};

    #[test]
    fn files_and_types_of_the_message_path_exist() {
        let files = rust_files("src");
        let types = files.iter().flat_map(|file| defined_types(&read(file))).collect();
        let tree = Tree { files: files.into_iter().collect(), types };
        complain(path_complaints(&read("docs/architecture.md"), &tree));
    }

    #[test]
    fn the_path_check_sees_missing_files_and_types() {
        let source = "pub struct Session<T>(T);\nenum Stage {}\n// struct Comment;\n\
                      #[cfg(test)]\nmod tests {\n    struct Fixture;\n}";
        let files = ["src/session.rs".to_owned()].into();
        let tree = Tree { files, types: defined_types(source).into_iter().collect() };
        let page = |rows: &str| {
            let header = COLUMNS.join(" | ");
            format!("| {header} |\n|---|---|---|---|---|\n{rows}\n\n| `Other` | `src/other.rs` |")
        };
        let path = |rows: &str, expected| check(&path_complaints(&page(rows), &tree), expected);

        path("| `Session::call` | `src/session.rs` | `Session` | `roadshow-io` | none |", 0);
        path("| a | `src/session.rs` | `Session` in `Stage<T>` | link's | none |", 0);
        path("| a | `src/gone.rs`, `src/session.rs` | `Session` | link's | none |", 1);
        path("| a | `src/session.rs` | `Gone` | link's | `Session` |", 1);
        path("| `Gone::call` | `src/session.rs` | `Session` | link's | `Comment` |", 2);
        path("| a | `src/session.rs` | `Fixture` | link's | none |", 1);
        path("| a | session | bytes | link's | none |", 2);
        path("| a |", 1);
        check(&path_complaints("# Path", &tree), 1);
        check(&path_complaints("| step | where |\n|---|---|\n", &tree), 1);
    }
}
