//! Tables of limits in the pages: each names its constant, and gives its value.

use std::collections::{BTreeMap, BTreeSet};

use super::tables::{quoted, tables};
use crate::source::Code;
use crate::{check, complain, is_test_file, read, rust_files};

#[test]
fn the_pages_give_limits_as_they_are() {
    let files = rust_files("src").into_iter().filter(|file| !is_test_file(file));
    let sources: Vec<_> =
        files.map(|file| Code::of(&read(&file)).without_tests().text().to_owned()).collect();
    let constants = constants(&sources);
    for page in ["docs/configuration.md", "docs/durable.md", "docs/failures.md", "docs/placement.md"] {
        complain(limit_complaints(&read(page), &constants));
    }
}

/// Rows whose constants are not there, or have other values.
fn limit_complaints(page: &str, constants: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut complaints = Vec::new();
    for table in tables(page) {
        // Only tables with both columns state limits.
        let Some([value, constant]) = ["value", "constant"]
            .map(|name| table[0].iter().position(|cell| cell == name))
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .map(|at| [at[0], at[1]])
        else {
            continue;
        };
        for row in &table[1..] {
            for name in quoted(&row[constant]) {
                match constants.get(&name) {
                    None => complaints.push(format!("there is no constant `{name}`")),
                    // Several files may have a constant of this name. One match is enough, as the page
                    // does not say which.
                    Some(values) => {
                        let mut shown = values.iter().flat_map(|value| shown(value, constants, 0));
                        if !shown.any(|shown| holds(&row[value], &shown)) {
                            complaints
                                .push(format!("`{name}` is {values:?}, and the page says `{}`", row[value]));
                        }
                    }
                }
            }
        }
    }
    complaints
}

/// Returns true if the text contains the value as a whole number with its unit.
fn holds(text: &str, value: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || matches!(c, ',' | '.');
    text.match_indices(value).any(|(at, _)| {
        // Punctuation may follow the value, but "64 MiBs" is another unit.
        let after = text[at + value.len()..].trim_start_matches([',', '.']);
        !text[..at].ends_with(goes_on) && !after.starts_with(char::is_alphanumeric)
    })
}

/// The constants of the sources by their names, each with its expressions: a name may be private in many files.
fn constants(sources: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in sources.iter().flat_map(|source| source.lines()) {
        let Some((_, rest)) = line
            .trim_start()
            .split_once("const ")
            .filter(|(before, _)| before.is_empty() || before.starts_with("pub"))
        else {
            continue;
        };
        if let (Some((name, _)), Some((_, value))) = (rest.split_once(':'), rest.split_once(" = ")) {
            found.entry(name.to_owned()).or_default().insert(value.trim_end_matches(';').to_owned());
        }
    }
    found
}

/// The forms in which pages may write the value of an expression.
fn shown(expression: &str, constants: &BTreeMap<String, BTreeSet<String>>, depth: usize) -> Vec<String> {
    // Constants of the same name may refer to each other in a circle.
    const DEPTH_MAX: usize = 4;
    if let Some((unit, amount)) =
        expression.strip_prefix("Duration::from_").and_then(|rest| rest.split_once('('))
    {
        let nanos = match unit {
            "secs" => 1_000_000_000,
            "millis" => 1_000_000,
            "micros" => 1000,
            _ => return Vec::new(),
        };
        return number(amount.trim_end_matches(')'))
            .map_or_else(Vec::new, |amount| durations(amount * nanos));
    }
    match (number(expression), constants.get(expression)) {
        (Some(amount), _) => sizes(amount),
        (None, Some(others)) if depth < DEPTH_MAX => {
            others.iter().flat_map(|other| shown(other, constants, depth + 1)).collect()
        }
        _ => Vec::new(),
    }
}

/// The value of a sum, a product or a shift of numbers.
fn number(expression: &str) -> Option<u128> {
    // Parentheses are dropped: they only group shifts, which bind most tightly here.
    let text = expression.replace(['(', ')', '_'], "").replace("u16::MAX as usize", "65535");
    let sum = |of: &str| {
        let product = |of: &str| {
            let mut shift = of.split("<<").map(|part| part.trim().parse::<u128>().ok());
            let first = shift.next()??;
            shift.try_fold(first, |value, by| Some(value << by?))
        };
        of.split('*').map(product).try_fold(1, |value, by| Some(value * by?))
    };
    text.split('+').map(sum).try_fold(0, |value, by| Some(value + by?))
}

fn durations(nanos: u128) -> Vec<String> {
    const UNITS: [(&str, u128); 7] = [
        ("µs", 1000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("min", 60_000_000_000),
        ("h", 3_600_000_000_000),
        ("days", 86_400_000_000_000),
        ("years", 365 * 86_400_000_000_000),
    ];
    in_units(nanos, &UNITS)
}

fn sizes(amount: u128) -> Vec<String> {
    const UNITS: [(&str, u128); 4] = [("bytes", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let mut shown = in_units(amount, &UNITS);
    // A count has no unit.
    shown.push(thousands(amount));
    shown
}

fn in_units(amount: u128, units: &[(&str, u128)]) -> Vec<String> {
    let whole = units.iter().filter(|(_, unit)| amount.is_multiple_of(*unit));
    // A page may use any unit that gives a whole number: 120 s or 2 min.
    whole.map(|(name, unit)| format!("{} {name}", thousands(amount / unit))).collect()
}

fn thousands(number: u128) -> String {
    let digits = number.to_string();
    let (first, rest) = digits.split_at((digits.len() - 1) % 3 + 1);
    let groups = rest.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    std::iter::once(first.to_owned()).chain(groups).collect::<Vec<_>>().join(",")
}

#[test]
fn a_limit_with_another_value_is_complained_of() {
    let source = "pub const A: usize = 64 << 20;\nconst B: Duration = Duration::from_secs(2 * 60);\n    pub(super) const C: usize = (1 << 20) + (64 << 10);\npub const D: Duration = B;\npub const E: usize = 10_000;\n";
    let constants = constants(&[source.to_owned()]);
    let of = |value: &str, name: &str, expected| {
        let page = format!("| what | value | constant |\n|---|---|---|\n| x | {value} | `{name}` |\n");
        check(&limit_complaints(&page, &constants), expected);
    };
    of("64 MiB; from 512 bytes", "A", 0);
    of("164 MiB", "A", 1);
    of("64 MiBs", "A", 1);
    of("2 min", "B", 0);
    of("120 s, or so", "D", 0);
    of("2 s", "D", 1);
    of("1,088 KiB", "C", 0);
    of("10,000", "E", 0);
    of("110,000", "E", 1);
    of("10,000", "F", 1);
}
