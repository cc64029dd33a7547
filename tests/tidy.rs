//! Text checks of the source, for rules that the compiler and clippy do not have.
//!
//! Each check is a function from text to complaints. One test runs it over the tree, and another shows that
//! it can complain.

#[path = "tidy/clocks.rs"]
mod clocks;
#[path = "tidy/errors.rs"]
mod errors;
#[path = "tidy/language.rs"]
mod language;
#[path = "tidy/pages.rs"]
mod pages;
#[path = "tidy/parts.rs"]
mod parts;
#[path = "tidy/path.rs"]
mod path;
#[path = "tidy/property_tests.rs"]
mod property_tests;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/waits.rs"]
mod waits;

use std::fs;
use std::path::{Path, PathBuf};

use source::Code;

/// Allowed imports of each module; the reasons are in `docs/architecture.md`.
///
/// A module may import itself and the modules of its row. `words` may use only the public names of the
/// crate root. A module without a row is an error; a row without a module is allowed, for modules to come.
const LAYERS: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("config", &[]),
    ("lock", &[]),
    ("background", &[]),
    ("spec", &["wire", "id"]),
    ("wire", &["id", "config"]),
    ("session", &["wire", "id", "config"]),
    ("transport", &["wire", "config", "id"]),
    ("registry", &["observe", "wire", "spec", "background", "lock", "config", "id"]),
    ("observe", &["lock", "config", "id"]),
    (
        "host",
        &[
            "session",
            "transport",
            "registry",
            "wire",
            "observe",
            "spec",
            "background",
            "lock",
            "config",
            "id",
        ],
    ),
    ("remote", &["host", "registry", "observe", "wire", "spec", "background", "lock", "config", "id"]),
    ("task", &["remote", "host", "registry", "observe", "wire", "background", "lock", "config", "id"]),
    ("durable", &["remote", "host", "registry", "observe", "wire", "spec", "lock", "config", "id"]),
    ("object", &["remote", "host", "id", "config"]),
    (
        "cluster",
        &[
            "object",
            "durable",
            "task",
            "remote",
            "host",
            "registry",
            "transport",
            "session",
            "wire",
            "observe",
            "spec",
            "background",
            "lock",
            "config",
            "id",
        ],
    ),
    ("error", &["cluster", "task", "remote", "host", "observe"]),
    ("dashboard", &["cluster", "remote", "observe", "id"]),
    ("property_tests", &[]),
    (WORDS, &[]),
];

/// The application, which is written like a user's program.
const WORDS: &str = "words";

/// Modules without side effects: no sockets, no clocks, no waiting, no logging.
const PURE: &[&str] = &["wire", "session", "cluster/control_plane"];

/// Maximum length of any file, in lines.
const FILE_LINES_MAX: usize = 800;

/// Maximum length of a file's code without its tests, in lines.
const CODE_LINES_MAX: usize = 500;

/// Macros that mark unfinished code.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!"];

/// Constructs that are not allowed in tests: they hide a test, accept any panic, or wait without a
/// condition.
const UNSOUND_IN_TESTS: &[&str] = &["#[ignore", "should_panic", "thread::sleep"];

/// First folders of paths that exist on one machine only.
const MACHINE_FOLDERS: &[&str] = &["work", "root", "home", "tmp"];

#[test]
fn modules_import_only_what_their_layer_may() {
    let root = root_names(&read("src/lib.rs"));
    complain(rust_files("src").iter().flat_map(|file| layer_complaints(file, &read(file), &root)));
}

#[test]
fn the_architecture_page_shows_the_same_table() {
    complain(table_complaints(&read("docs/architecture.md")));
}

#[test]
fn every_module_has_a_row_in_the_table() {
    let modules = rust_files("src").into_iter().filter_map(|file| module_path(&file).into_iter().next());
    complain(
        modules.filter(|module| allowed(module).is_none()).map(|module| format!("LAYERS has no `{module}`")),
    );
}

#[test]
fn pure_modules_use_no_socket_and_no_clock() {
    complain(rust_files("src").iter().flat_map(|file| purity_complaints(file, &read(file))));
}

#[test]
fn only_known_files_read_the_wall_clock() {
    let files = rust_files("src").into_iter().filter(|file| !file.starts_with("src/bin/"));
    complain(files.filter_map(|file| clocks::complaint(&file, &read(&file))));
}

#[test]
fn the_page_lists_every_operation_that_takes_time() {
    let files = all_rust_files().into_iter();
    let files = files.filter(|file| waits::FOLDERS.iter().any(|folder| file.starts_with(folder)));
    let operations = files.flat_map(|file| waits::operations(&read(&file))).collect();
    complain(waits::complaints(&read("docs/sending.md"), &operations));
}

#[test]
fn files_stay_below_the_length_limits() {
    complain(all_rust_files().iter().flat_map(|file| length_complaints(file, &read(file))));
}

#[test]
fn files_start_with_a_module_doc() {
    complain(all_rust_files().iter().filter_map(|file| headline_complaint(file, &read(file))));
}

#[test]
fn nothing_is_left_unfinished() {
    complain(all_rust_files().iter().flat_map(|file| word_complaints(file, &read(file), UNFINISHED)));
}

#[test]
fn tests_neither_sleep_nor_hide() {
    // An example may sleep: one of them is about sleeping.
    let files = all_rust_files().into_iter().filter(|file| !file.starts_with("examples/"));
    complain(files.flat_map(|file| word_complaints(&file, &read(&file), UNSOUND_IN_TESTS)));
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let files = files_below("").into_iter().filter(|file| {
        let name = file.rsplit('/').next().unwrap_or(file);
        matches!(name.rsplit_once('.').map_or(name, |(_, end)| end), "md" | "rs" | "toml" | "stderr" | "run")
    });
    complain(files.flat_map(|file| machine_complaints(&file, &read(&file))));
}

/// Path roots within this crate, by which a module can reach another.
const CRATE_ROOTS: &[&str] = &["crate", "super", "self", "roadshow"];

fn layer_complaints(file: &str, source: &str, root: &[(String, String)]) -> Vec<String> {
    let path = module_path(file);
    let (Some(own), false) = (path.first(), is_test_file(file)) else { return Vec::new() };
    let mut complaints = Vec::new();
    for named in Code::of(source).without_tests().paths(CRATE_ROOTS) {
        let below_root = below_root(&path, &named.segments);
        let fine = match &below_root[..] {
            [] => true,
            [name, ..] if name == own => true,
            [name, rest @ ..] if own == WORDS => is_public(name, !rest.is_empty(), root),
            [name, ..] => {
                // A re-exported name counts as its module, or re-exports would bypass the table.
                let exported = root.iter().find(|(exported, _)| exported == name && allowed(name).is_none());
                let module = exported.map_or(name, |(_, module)| module);
                module == own || allowed(own).is_some_and(|may| may.contains(&module.as_str()))
            }
        };
        if !fine {
            complaints.push(format!(
                "{file}:{}: `{own}` may not use `{}`",
                named.line,
                named.segments.join("::")
            ));
        }
    }
    complaints
}

/// Tests if a user can write the name too. The macro `task` does not make the module `task` public.
fn is_public(name: &str, goes_on: bool, root: &[(String, String)]) -> bool {
    let is_module = goes_on && allowed(name).is_some();
    !name.starts_with("__")
        && root.iter().any(|(public, module)| public == name && (!is_module || module == name))
}

/// Resolves a path relative to the crate's root.
fn below_root(module: &[String], segments: &[String]) -> Vec<String> {
    let mut at = module.to_vec();
    for segment in segments {
        match segment.as_str() {
            // `words` names the crate as a user does, by `roadshow`.
            "crate" | "roadshow" => at.clear(),
            "self" => {}
            "super" => drop(at.pop()),
            name => at.push(name.to_owned()),
        }
    }
    at
}

/// Lists the names that `lib.rs` exports, each with its module.
fn root_names(lib: &str) -> Vec<(String, String)> {
    let names = Code::of(lib).without_tests().public_names().into_iter();
    let origin =
        |path: Vec<String>| path.into_iter().find(|segment| !CRATE_ROOTS.contains(&segment.as_str()));
    names.map(|(name, path)| (name, origin(path).unwrap_or_default())).collect()
}

/// Compares the page's table, with the columns `module`, `owns` and `may import`, with `LAYERS`.
fn table_complaints(page: &str) -> Vec<String> {
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>();
    let rows = page.lines().skip_while(|line| !line.contains("| may import |")).skip(2);
    let rows: Vec<_> = rows.take_while(|line| line.starts_with('|')).map(cells).collect();
    let shown: Vec<_> = rows.iter().map(|row| row[1].as_str()).collect();
    let mut complaints = Vec::new();
    // Otherwise a renamed column would make the check pass without comparing anything.
    if rows.is_empty() {
        complaints.push("docs/architecture.md has no table with the column `may import`".to_owned());
    }
    for (at, row) in rows.iter().enumerate().filter(|(_, row)| row[1] != WORDS) {
        let mut page_says: Vec<&str> = match row[3].as_str() {
            // A row with all names would be too long.
            "all the above" => shown[..at].to_vec(),
            list => list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect(),
        };
        let may = allowed(&row[1]).unwrap_or_default().iter().copied();
        let mut table_says: Vec<&str> = may.filter(|name| shown.contains(name)).collect();
        // Only the sets matter.
        page_says.sort_unstable();
        table_says.sort_unstable();
        if page_says != table_says {
            complaints.push(format!(
                "docs/architecture.md: `{}` may import {table_says:?}, not {page_says:?}",
                row[1]
            ));
        }
    }
    complaints
}

fn purity_complaints(file: &str, source: &str) -> Vec<String> {
    const ROOTS: &[&str] = &["std", "core", "tokio", "tokio_util", "actix", "actix_rt", "tracing"];
    let Some(layer) = PURE.iter().find(|layer| file.starts_with(&format!("src/{layer}"))) else {
        return Vec::new();
    };
    if is_test_file(file) {
        return Vec::new();
    }
    let code = Code::of(source).without_tests();
    let impure = |segments: &[String]| match segments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["std" | "core", "net" | "thread" | "fs" | "process", ..] => true,
        ["std", "time", "SystemTime", ..] => true,
        // The codec traits do no I/O, and `wire` implements them.
        ["tokio_util", "codec", ..] => *layer != "wire",
        [root, ..] => root != "std" && root != "core",
        [] => false,
    };
    let paths = code.paths(ROOTS).into_iter().filter(|named| impure(&named.segments));
    let mut complaints: Vec<_> = paths
        .map(|named| format!("{file}:{}: `{layer}` is pure: no `{}`", named.line, named.segments.join("::")))
        .collect();
    // A pure module takes the time as an argument, so that tests can choose it.
    for word in ["Instant::now", "SystemTime::now", "async", "await"] {
        complaints.extend(
            lines_with(code.text(), word)
                .map(|line| format!("{file}:{line}: `{layer}` is pure: no `{word}`")),
        );
    }
    complaints
}

fn length_complaints(file: &str, source: &str) -> Vec<String> {
    let lines = source.lines().count();
    // Tests and comments do not count: the limit is about how much code a reader has to understand.
    let code = Code::of(source).without_tests().lines();
    let mut complaints = Vec::new();
    if lines > FILE_LINES_MAX {
        complaints.push(format!("{file}: {lines} lines; split it below {FILE_LINES_MAX}"));
    }
    if code > CODE_LINES_MAX && !is_test_file(file) {
        complaints.push(format!("{file}: {code} lines of code; split it below {CODE_LINES_MAX}"));
    }
    complaints
}

fn headline_complaint(file: &str, source: &str) -> Option<String> {
    (!source.starts_with("//! ")).then(|| format!("{file}: start with `//! ` and the purpose of the file"))
}

fn word_complaints(file: &str, source: &str, words: &[&str]) -> Vec<String> {
    // Comments and strings may name the words, as this file does.
    let code = Code::of(source);
    let complaints = words.iter().flat_map(|word| {
        lines_with(code.text(), word)
            .map(move |line| format!("{file}:{line}: `{word}` does not stay in the tree"))
    });
    complaints.collect()
}

fn machine_complaints(file: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for folder in MACHINE_FOLDERS {
            let path = format!("/{folder}/");
            // Excludes a folder name within a longer path, such as a URL or a folder of the project.
            let stands_alone =
                |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~}>*".contains(c));
            if line.match_indices(&path).any(|(at, _)| stands_alone(at)) {
                complaints.push(format!("{file}:{}: `{path}` is on one machine only", number + 1));
            }
        }
    }
    complaints
}

/// Yields the lines that contain `word` as a whole word.
fn lines_with<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    let stands = move |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + word.len()..]);
            let goes_on = word.ends_with(part_of_word) && after.starts_with(part_of_word);
            !(before.ends_with(part_of_word) || goes_on)
        })
    };
    text.lines().enumerate().filter(move |(_, line)| stands(line)).map(|(number, _)| number + 1)
}

fn allowed(module: &str) -> Option<&'static [&'static str]> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, may)| *may)
}

/// Returns the module of a file in `src`; empty for the crate's root and for binaries.
fn module_path(file: &str) -> Vec<String> {
    let Some(inner) = file.strip_prefix("src/").and_then(|inner| inner.strip_suffix(".rs")) else {
        return Vec::new();
    };
    if inner == "lib" || inner == "main" || inner.starts_with("bin/") {
        return Vec::new();
    }
    inner.strip_suffix("/mod").unwrap_or(inner).split('/').map(str::to_owned).collect()
}

/// Tests if the whole file is test code: its module is declared under `#[cfg(test)]`, or it is a test
/// itself.
fn is_test_file(file: &str) -> bool {
    file.starts_with("tests/") || file.ends_with("/tests.rs") || file.contains("/tests/")
}

fn all_rust_files() -> Vec<String> {
    ["src", "macros/src", "tests", "examples", "benches"].into_iter().flat_map(rust_files).collect()
}

fn rust_files(folder: &str) -> Vec<String> {
    files_below(folder).into_iter().filter(|file| file.ends_with(".rs")).collect()
}

/// Lists the project's files below `folder`, sorted, as paths from the project's root.
fn files_below(folder: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        // A missing folder has no files.
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("the project can be read").path();
            match path.is_dir() {
                true if is_project_folder(&path) => folders.push(path),
                true => {}
                false => files.push(relative(&path, root)),
            }
        }
    }
    // The order of `read_dir` differs between file systems.
    files.sort();
    files
}

fn is_project_folder(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Hidden folders belong to tools; `.ci` has scripts of the project.
    name == ".ci" || !(name.starts_with('.') || name == "target")
}

fn relative(path: &Path, root: &Path) -> String {
    let parts = path.strip_prefix(root).expect("files are below the root").components();
    parts.map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn read(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("failed to read {file}: {error}"))
}

#[track_caller]
fn complain(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<_> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

/// Checks the number of complaints about a text.
#[track_caller]
fn check(complaints: &[String], expected: usize) {
    assert_eq!(complaints.len(), expected, "{complaints:#?}");
}

#[test]
fn the_layer_check_finds_every_path_to_a_wrong_module() {
    let lib = "mod host; mod task; mod wire; pub mod words; pub use wire::Payload; pub use host::Host; \
               pub use roadshow_macros::task; pub mod __private {}";
    let root = root_names(lib);
    let layer = |file: &str, source: &str, expected| check(&layer_complaints(file, source, &root), expected);

    layer("src/wire/mod.rs", "use crate::{id::CallId, host::Host, config};", 1);
    layer("src/wire/mod.rs", "fn f() -> u8 { crate::host::port() + super::session::x() }", 2);
    layer("src/wire/codec.rs", "use super::{Frame, super::{id, host::Host}};\nuse super::super::remote;", 2);
    layer("src/wire/codec.rs", "use super::frame;\nuse crate::Payload;\nuse self::reader::Reader;", 0);
    layer("src/wire/codec.rs", "use crate::Host;", 1);
    layer("src/id.rs", "/// Like [`crate::host`].\nconst A: &str = \"crate::host\";", 0);
    layer("src/id.rs", "#[cfg(test)]\nmod tests {\n    use crate::host::Host;\n}", 0);
    layer("src/wire/tests.rs", "use crate::host::Host;", 0);

    layer(
        "src/words/mod.rs",
        "use crate::{Host, Payload};\nuse roadshow::Payload;\nuse super::words::list;",
        0,
    );
    layer("src/words/mod.rs", "use crate::host::Host;", 1);
    layer("src/words/node.rs", "use super::super::wire;\nuse crate::__private::x;", 2);
    layer("src/words/task.rs", "#[roadshow::task]\nfn f() {}\nuse crate::task::TaskRef;", 1);
}

#[test]
fn the_table_check_finds_differences() {
    let page = |rows: &str| {
        format!("# Map\n\n| module | owns | may import |\n|---|---|---|\n{rows}\n\n| `id` | else | wire |")
    };
    check(&table_complaints(&page("| `id` | a | |\n| `config` | b | |\n| `wire` | c | config, id |")), 0);
    check(
        &table_complaints(&page("| `id` | a | |\n| `wire` | b | id |\n| `cluster` | c | all the above |")),
        0,
    );
    check(&table_complaints(&page("| `id` | a | wire |\n| `wire` | b | |")), 2);
    check(&table_complaints("# Map"), 1);
}

#[test]
fn the_purity_check_finds_sockets_clocks_and_waiting() {
    let purity = |file: &str, source: &str, expected| check(&purity_complaints(file, source), expected);

    purity(
        "src/wire/mod.rs",
        "use tokio_util::codec::Decoder;\nuse std::time::Instant;\nfn f(now: Instant) {}",
        0,
    );
    purity("src/session/mod.rs", "use tokio_util::codec::Decoder;", 1);
    purity("src/wire/mod.rs", "use tokio_util::{codec::Encoder, io::StreamReader};", 1);
    purity("src/wire/mod.rs", "use std::{fmt, net::TcpStream};\nuse tokio::sync::mpsc;", 2);
    purity("src/session/mod.rs", "fn f() { let now = Instant::now(); tracing::debug!(\"x\"); }", 2);
    purity("src/session/mod.rs", "async fn f() {\n    g().await;\n}", 2);
    purity("src/session/mod.rs", "let t = std::time::SystemTime::UNIX_EPOCH; // Instant::now", 1);
    purity("src/cluster/control_plane/state/node.rs", "use std::thread;", 1);
    purity("src/cluster/mod.rs", "use std::thread;", 0);
    purity("src/session/tests.rs", "use std::thread;", 0);
}

#[test]
fn the_length_check_finds_long_files() {
    let lines = |line: &str, n: usize| format!("{line}\n").repeat(n);

    check(&length_complaints("src/a.rs", &lines("f();", CODE_LINES_MAX)), 0);
    check(&length_complaints("src/a.rs", &lines("f();", CODE_LINES_MAX + 1)), 1);
    check(&length_complaints("tests/a.rs", &lines("f();", CODE_LINES_MAX + 1)), 0);
    check(&length_complaints("src/a.rs", &lines("// f", FILE_LINES_MAX + 1)), 1);
    let tested = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines("f();", CODE_LINES_MAX + 1));
    check(&length_complaints("src/a.rs", &tested), 0);
}

#[test]
fn the_headline_check_finds_a_file_without_one() {
    assert_eq!(headline_complaint("a.rs", "//! Counts words.\n"), None);
    assert!(headline_complaint("a.rs", "use std::fmt;\n").is_some());
    assert!(headline_complaint("a.rs", "/// Counts words.\n").is_some());
}

#[test]
fn the_word_check_finds_code_and_not_prose() {
    check(
        &word_complaints("a.rs", "fn f() { todo!() }\nfn g() { dbg!(1); unimplemented!() }", UNFINISHED),
        3,
    );
    check(&word_complaints("a.rs", "// todo!()\nconst A: &str = \"dbg!\"; my_todo!();", UNFINISHED), 0);
    check(
        &word_complaints(
            "a.rs",
            "#[ignore = \"slow\"]\n#[should_panic]\nstd::thread::sleep(d);",
            UNSOUND_IN_TESTS,
        ),
        3,
    );
}

#[test]
fn the_machine_check_finds_paths_and_not_links() {
    let [one, another] = [MACHINE_FOLDERS[0], MACHINE_FOLDERS[3]];
    check(&machine_complaints("a.md", &format!("Look into /{one}/x and `/{another}/y`.")), 2);
    check(&machine_complaints("a.md", &format!("See https://example.org/{one}/x or docs/{another}/y.")), 0);
}
