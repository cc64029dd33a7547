//! Tables of the pages against the source: variables, options, exit codes, errors, keys and versions.

use std::collections::{BTreeMap, BTreeSet};

use super::tables::{differences, first_cells, quoted, section_rows};
use crate::source::Code;
use crate::{check, complain, read, rust_files};

/// The page of variables and limits.
const CONFIGURATION: &str = "docs/configuration.md";

/// The page of commands.
const COMMANDS: &str = "docs/cli.md";

#[test]
fn the_page_lists_the_variables_that_the_source_reads() {
    let sources = rust_files("src").into_iter().map(|file| read(&file));
    let read_there = sources.flat_map(|source| variables(&source)).collect();
    complain(variable_complaints(&read(CONFIGURATION), &read_there));
}

#[test]
fn the_page_lists_the_fields_of_limits() {
    let sources: Vec<_> = rust_files("src").iter().map(|file| read(file)).collect();
    let fields = fields(&sources, "pub struct Limits ");
    complain(differences("`Limits`", &first_cells(&read(CONFIGURATION), "`Limits`"), &fields));
}

#[test]
fn the_page_lists_the_exit_codes() {
    let source = rust_files("src/bin/roadshow").into_iter().find(|file| file.ends_with("/exit.rs"));
    let source = read(&source.expect("exit.rs has the codes"));
    complain(differences("exit codes", &first_cells(&read(COMMANDS), "Exit codes"), &codes(&source)));
}

#[test]
fn the_page_lists_the_keys_of_rows() {
    let sources = rust_files("src/bin/roadshow").into_iter().map(|file| read(&file));
    complain(key_complaints(&read(COMMANDS), &sources.flat_map(|source| keys(&source)).collect()));
}

#[test]
fn the_page_has_every_case_of_an_error() {
    let sources: Vec<_> = rust_files("src").iter().map(|file| read(file)).collect();
    for name in [
        "NotDelivered",
        "OutcomeUnknown",
        "DisconnectReason",
        "SpawnError",
        "PlacementError",
        "FindError",
        "TaskError",
    ] {
        let listed = first_cells(&read("docs/errors.md"), &format!("`{name}`"));
        complain(differences(name, &listed, &variants(&sources, name)));
    }
}

#[test]
fn the_pages_give_the_versions_of_the_source() {
    let (page, protocol) = (read("docs/stability.md"), read("docs/protocol.md"));
    complain(version_complaints(
        &page,
        &read("Cargo.toml"),
        &read("README.md"),
        &protocol,
        &read("src/wire/mod.rs"),
    ));
}

#[test]
fn the_texts_of_troubleshooting_are_printed() {
    // The page has texts in one piece, while the source may wrap them.
    let sources: Vec<_> = rust_files("src").iter().map(|file| one_line_texts(&read(file))).collect();
    complain(text_complaints(&read("docs/operations.md"), &sources));
}

#[test]
fn figures_are_measured_in_the_profile_of_a_user() {
    complain(profile_complaints(&read("Cargo.toml")));
}

/// A release profile of the workspace, which a program that depends on the crate does not have.
fn profile_complaints(manifest: &str) -> Vec<String> {
    let sections = manifest.lines().map(str::trim);
    let own = sections.filter(|line| {
        ["[profile.release", "[profile.bench"].iter().any(|section| line.starts_with(section))
    });
    own.map(|line| format!("Cargo.toml: remove `{line}`; a user's program is built without it")).collect()
}

fn variable_complaints(page: &str, read_there: &BTreeSet<String>) -> Vec<String> {
    let listed = first_cells(page, "Environment").into_iter().filter(|name| name.starts_with("ROADSHOW_"));
    differences("variables", &listed.collect(), read_there)
}

/// The variables of Roadshow that a file names as text.
fn variables(source: &str) -> BTreeSet<String> {
    let named = source.split("\"ROADSHOW_").skip(1).filter_map(|rest| rest.split_once('"'));
    let names =
        named.map(|(name, _)| name).filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
    // The filter above drops messages such as "ROADSHOW_X is set twice".
    names.map(|name| format!("ROADSHOW_{name}")).collect()
}

/// Texts of the table of troubleshooting that no source has.
fn text_complaints(page: &str, sources: &[String]) -> Vec<String> {
    let texts = first_cells(page, "Troubleshooting").into_iter();
    // `...` stands for a part that differs.
    let is_printed =
        |text: &str| text.split("...").all(|part| sources.iter().any(|source| source.contains(part.trim())));
    texts.filter(|text| !is_printed(text)).map(|text| format!("no source has the text `{text}`")).collect()
}

/// A source in which no text goes over more than one line.
fn one_line_texts(source: &str) -> String {
    let mut lines = source.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    // Rust drops the indentation after a backslash at the end of a line.
    lines.fold(first, |text, line| text + line.trim_start())
}

fn codes(source: &str) -> BTreeSet<String> {
    let declared = source.lines().filter_map(|line| line.split_once(": u8 = ")).map(|(_, code)| code);
    declared.map(|code| code.trim_end_matches(';').to_owned()).collect()
}

/// The keys of each type that the command lists.
fn keys(source: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for rest in source.split("impl Row for ").skip(1) {
        let Some((name, body)) = rest.split_once(" {") else { continue };
        let listed = body
            .split_once("FIELDS: ")
            .and_then(|(_, rest)| rest.split_once("];"))
            .map_or("", |(list, _)| list);
        // Every second part lies between quotes.
        let names = listed.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        found.insert(name.to_owned(), names);
    }
    found
}

fn key_complaints(page: &str, keys: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut complaints = Vec::new();
    let rows: BTreeMap<_, _> =
        section_rows(page, "`--json`").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    for (name, declared) in keys {
        // `NodeInfo` is listed by `list nodes`.
        let kind = name.trim_end_matches("Info").trim_end_matches("Summary").to_lowercase();
        let listed = rows
            .get(&format!("`{kind}s`"))
            .map_or_else(BTreeSet::new, |cell| quoted(cell).into_iter().collect());
        complaints.extend(differences(name, &listed, declared));
    }
    complaints
}

/// The variants of a public enum.
fn variants(sources: &[String], name: &str) -> BTreeSet<String> {
    let header = format!("pub enum {name} {{");
    body(sources, &header)
        .lines()
        // Fields of a variant are indented further, so they do not match.
        .filter(|line| line.starts_with("    ") && line[4..].starts_with(char::is_uppercase))
        .map(|line| line.trim().split(['(', ' ', ',', '{']).next().unwrap_or_default().to_owned())
        .collect()
}

/// The public fields of a struct, but hidden ones.
fn fields(sources: &[String], header: &str) -> BTreeSet<String> {
    let body = body(sources, header);
    let shown = body.lines().take_while(|line| !line.contains("doc(hidden)"));
    shown
        .filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The code between the braces of an item.
fn body(sources: &[String], header: &str) -> String {
    let source = sources.iter().find(|source| source.contains(header));
    let code = source.map(|source| Code::of(source).text().to_owned()).unwrap_or_default();
    let hidden = source.and_then(|source| source.split_once(header)).map_or("", |(_, rest)| rest);
    match hidden.split_once("\n}") {
        // Attributes have to be seen, strings and comments not.
        Some((raw, _)) if header.contains("struct") => raw.to_owned(),
        _ => code
            .split_once(header)
            .and_then(|(_, rest)| rest.split_once("\n}"))
            .map_or_else(String::new, |(body, _)| body.to_owned()),
    }
}

fn version_complaints(page: &str, manifest: &str, readme: &str, protocol: &str, wire: &str) -> Vec<String> {
    let behind = |text: &str, mark: &str| {
        let number = text.split_once(mark).map_or("", |(_, rest)| rest);
        number
            .chars()
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect::<String>()
            .trim_end_matches('.')
            .to_owned()
    };
    let (rust, hosts) = (behind(manifest, "rust-version = \""), behind(wire, "pub const VERSION: u16 = "));
    let expected = [
        (page, "stability.md", "supported Rust version | ", &rust),
        (readme, "README.md", "Linux and Rust ", &rust),
        (page, "stability.md", "| between hosts | ", &hosts),
        (protocol, "protocol.md", "\nVersion ", &hosts),
    ];
    // An empty version means that the mark is missing, which must not count as agreement.
    let wrong = expected
        .into_iter()
        .filter(|(text, _, mark, version)| version.is_empty() || behind(text, mark) != **version);
    wrong
        .map(|(_, file, mark, version)| format!("{file}: behind `{}` is not `{version}`", mark.trim()))
        .collect()
}

#[test]
fn a_variable_that_is_not_listed_is_complained_of() {
    let read_there = variables("var(\"ROADSHOW_A\"); set(\"ROADSHOW_B_C\"); print(\"ROADSHOW_X is {x}\")");
    let page = |rows: &str| {
        format!("## Environment\n\n| variable | a |\n|---|---|\n{rows}\n## Else\n\n| `ROADSHOW_Z` | a |\n")
    };
    check(
        &variable_complaints(&page("| `ROADSHOW_A` | x |\n| `ROADSHOW_B_C`, `HOME` | x |\n"), &read_there),
        0,
    );
    check(&variable_complaints(&page("| `ROADSHOW_A` | x |\n| `ROADSHOW_D` | x |\n"), &read_there), 2);
}

#[test]
fn a_release_profile_of_the_workspace_is_complained_of() {
    check(&profile_complaints("[profile.dev]\ndebug = false\n\n[profile.dev.package.\"*\"]\n"), 0);
    check(&profile_complaints("[profile.release]\nlto = true\n\n[profile.release.package]\n"), 2);
}

#[test]
fn a_text_that_nothing_prints_is_complained_of() {
    let source = one_line_texts("error(\"no way to \\\n     {host}: it is \\\n     gone\")");
    let page = |text: &str| format!("## Troubleshooting\n\n| text | a |\n|---|---|\n| {text} | x |\n");
    let sources = [source];
    check(&text_complaints(&page("`no way to ...: it is gone`, `error`"), &sources), 0);
    check(&text_complaints(&page("`no way to`, `it is lost`"), &sources), 1);
}

#[test]
fn codes_keys_cases_and_versions_that_differ_are_complained_of() {
    assert_eq!(
        codes("pub(crate) const OK: u8 = 0;\nconst NO: u8 = 7;\n"),
        ["0", "7"].map(str::to_owned).into()
    );
    let keys =
        keys("impl Row for NodeInfo {\n    const FIELDS: &'static [&'static str] = &[\"a\", \"b\"];\n}");
    check(
        &key_complaints("## `--json`\n\n| rows of | keys |\n|---|---|\n| `nodes` | `a`, `b` |\n", &keys),
        0,
    );
    check(
        &key_complaints("## `--json`\n\n| rows of | keys |\n|---|---|\n| `nodes` | `a`, `c` |\n", &keys),
        2,
    );

    let source = "/// Doc.\npub enum E {\n    /// A.\n    #[error(\"Not: {x}\")]\n    First {\n        x: Deep,\n    },\n    Second(#[from] Other),\n}\n";
    assert_eq!(variants(&[source.to_owned()], "E"), ["First", "Second"].map(str::to_owned).into());
    let limits =
        "pub struct Limits {\n    /// A.\n    pub a: usize,\n    #[doc(hidden)]\n    pub b: u8,\n}\n";
    assert_eq!(fields(&[limits.to_owned()], "pub struct Limits "), ["a".to_owned()].into());

    let page = "| minimum supported Rust version | 1.88 |\n| between hosts | 2 |\n";
    let of = |page: &str, protocol: &str| {
        version_complaints(
            page,
            "rust-version = \"1.88\"",
            "You need Linux and Rust 1.88 or later.",
            protocol,
            "pub const VERSION: u16 = 2;",
        )
    };
    check(&of(page, "# P\n\nVersion 2: x"), 0);
    check(&of(page, "# P\n\nVersion 3: x"), 1);
    check(&of("| between hosts | 3 |", "# P\n\nVersion 2: x"), 2);
}
