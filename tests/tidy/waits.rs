//! Compares the operations that take time with the table in `docs/sending.md`, which lists the timeout of
//! each.

use std::collections::BTreeSet;

use crate::source::Code;

/// Files and folders with the public operations that take time.
pub(crate) const FOLDERS: &[&str] =
    &["src/remote", "src/task", "src/cluster/mod.rs", "src/cluster/builder.rs", "src/host/mod.rs"];

/// Return types of operations that are awaited.
const REQUESTS: &[&str] = &["Request<", "SpawnRequest<", "RunTask<", "RunAll<", "Watch", "impl Future<"];

/// Lists the public operations of a file that take time, as `Type::name`.
pub(crate) fn operations(source: &str) -> Vec<String> {
    let code = Code::of(source).without_tests();
    let (mut owner, mut found, mut rest) = (String::new(), Vec::new(), code.text());
    while let Some(line) = rest.lines().next() {
        // An impl of a trait has no `pub` functions.
        if let Some(header) = line.strip_prefix("impl").filter(|header| !header.contains(" for ")) {
            owner = type_of(header);
        }
        if let Some(item) = line.trim_start().strip_prefix("pub ").filter(|item| item.contains("fn ")) {
            // rustfmt may wrap a signature, so it is read from the rest of the file and not from this
            // line.
            let signature: String = rest.split(['{', ';']).next().unwrap_or_default().to_owned();
            let (_, name) = item.split_once("fn ").unwrap_or_default();
            let name: String = name.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect();
            let output = signature.rsplit_once("->").map_or("", |(_, output)| output);
            if item.starts_with("async") || REQUESTS.iter().any(|request| output.contains(request)) {
                found.push(format!("{owner}::{name}"));
            }
        }
        // Only one line is consumed: the next one may start an item as well.
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    }
    found
}

/// Returns the type of `impl<..> Type<..>`, without the first word.
fn type_of(header: &str) -> String {
    let mut depth = 0;
    let bare = header.chars().filter(|it| {
        depth += i32::from(*it == '<') - i32::from(*it == '>');
        // The closing bracket reaches depth 0 before it is tested.
        depth == 0 && *it != '>'
    });
    bare.take_while(|it| *it != '{').collect::<String>().trim().to_owned()
}

/// Lists the operations missing from the table of the page, and those missing from the source.
pub(crate) fn complaints(page: &str, operations: &BTreeSet<String>) -> Vec<String> {
    let rows = page.split_once("### What takes time").map_or("", |(_, behind)| behind);
    let rows =
        rows.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = rows.skip(2).filter_map(|row| row.split('|').nth(1));
    let listed: BTreeSet<String> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let missing = operations.difference(&listed).map(|name| format!("the table has no `{name}`"));
    missing.chain(listed.difference(operations).map(|name| format!("there is no `{name}`"))).collect()
}

#[test]
fn an_operation_that_is_not_in_the_table_is_found() {
    let source = "impl<M: A<B>> Way<M> {\n    pub async fn one() {}\n    pub fn two(&self)\n    -> Request<M> {\n    }\n    \
                  pub fn no(&self) -> u8 {}\n    async fn own() {}\n}\nimpl Way {\n    pub fn three() -> impl Future<Output = ()> {}\n}\n";
    let found: BTreeSet<_> = operations(source).into_iter().collect();
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["Way::one", "Way::three", "Way::two"]);
    let page = "### What takes time\n\n| what | a |\n|---|---|\n| `Way::one`, `Way::two` | x |\n| `Way::four` | y |\n";
    assert_eq!(complaints(page, &found), ["the table has no `Way::three`", "there is no `Way::four`"]);
}
