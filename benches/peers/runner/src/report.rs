//! Tables of a run, and the same as JSON.

use std::fmt::Write;
use std::process::Command;

use anyhow::{Context, Result};
use peers_harness::Load;
use serde_json::{Value, json};

use crate::args::Args;
use crate::figures::{Cell, Figures, Row};
use crate::process::Pin;

/// Column of a table: its head and its cell.
struct Column {
    head: &'static str,
    load: Load,
    kind: Kind,
}

/// Text of a cell.
#[derive(Clone, Copy)]
enum Kind {
    Key(&'static str),
    Thousands,
    /// Sum of client and servers.
    Cpu,
    Memory,
}

const fn column(head: &'static str, load: Load, kind: Kind) -> Column {
    Column { head, load, kind }
}

const MESSAGES: &[Column] = &[
    column("round trip p50, µs", Load::RoundTrip, Kind::Key("p50_us")),
    column("p99, µs", Load::RoundTrip, Kind::Key("p99_us")),
    column("64 callers, k/s", Load::Calls64, Kind::Thousands),
    column("1,024 callers", Load::Calls1024, Kind::Thousands),
    column("with timeout", Load::Timeout1024, Kind::Thousands),
    column("with retry", Load::Retry1024, Kind::Thousands),
    column("8 to 8 actors", Load::Pairs8, Kind::Thousands),
    column("fan-out to 4", Load::FanOut4, Kind::Thousands),
    column("one-way by 16", Load::OneWay16, Kind::Thousands),
    column("one-way by 256", Load::OneWay256, Kind::Thousands),
    column("spawns", Load::Spawns16, Kind::Thousands),
];

const BYTES: &[Column] = &[
    column("replies of 1 KiB, MB/s", Load::Reply1K, Kind::Key("mb_per_s")),
    column("1 KiB", Load::Echo1K, Kind::Key("mb_per_s")),
    column("64 KiB", Load::Echo64K, Kind::Key("mb_per_s")),
    column("1 MiB", Load::Echo1M, Kind::Key("mb_per_s")),
    column("1 KiB as `Vec<u8>`", Load::Plain1K, Kind::Key("mb_per_s")),
    column("64 KiB as `Vec<u8>`", Load::Plain64K, Kind::Key("mb_per_s")),
    column("1 MiB as `Vec<u8>`", Load::Plain1M, Kind::Key("mb_per_s")),
    column("lists of words, 1/s", Load::Words, Kind::Key("rate")),
    column("own type of list, 1/s", Load::WordList, Kind::Key("rate")),
];

const CPU: &[Column] = &[
    column("round trip", Load::RoundTrip, Kind::Cpu),
    column("64 callers", Load::Calls64, Kind::Cpu),
    column("1,024 callers", Load::Calls1024, Kind::Cpu),
    column("8 to 8 actors", Load::Pairs8, Kind::Cpu),
    column("fan-out to 4", Load::FanOut4, Kind::Cpu),
    column("one-way by 16", Load::OneWay16, Kind::Cpu),
    column("one-way by 256", Load::OneWay256, Kind::Cpu),
    column("replies of 1 KiB", Load::Reply1K, Kind::Cpu),
    column("echo of 64 KiB", Load::Echo64K, Kind::Cpu),
    column("lists of words", Load::Words, Kind::Cpu),
];

const MEMORY: &[Column] = &[
    column("1,024 callers", Load::Calls1024, Kind::Memory),
    column("one-way by 16", Load::OneWay16, Kind::Memory),
    column("one-way by 256", Load::OneWay256, Kind::Memory),
    column("echo of 64 KiB", Load::Echo64K, Kind::Memory),
    column("echo of 1 MiB", Load::Echo1M, Kind::Memory),
    column("lists of words", Load::Words, Kind::Memory),
];

/// Markdown: a head, and four tables for each pinning.
pub(crate) fn markdown(args: &Args, figures: &Figures) -> Result<String> {
    let mut text = head(args, figures)?;
    for pin in &args.pins {
        let place = if pin.name() == "one-core" { "client and servers on one core" } else { "a core each" };
        let mut table = |title: &str, columns: &[Column], idle: bool| {
            let shown: Vec<_> = columns.iter().filter(|column| args.loads.contains(&column.load)).collect();
            if shown.is_empty() {
                return Ok(());
            }
            write_table(&mut text, &format!("{title}, {place}"), &shown, idle, pin, args, figures)
        };
        table("Messages", MESSAGES, false)?;
        table("Payloads and lists of words", BYTES, false)?;
        table("CPU seconds a million messages, client + servers", CPU, false)?;
        table("Peak memory in MiB, client + servers", MEMORY, true)?;
    }
    Ok(text)
}

fn head(args: &Args, figures: &Figures) -> Result<String> {
    let mut text = format!(
        "{}, {}. {} of {} s each; medians. {}.\n",
        output_of("date", "+%F"),
        output_of("rustc", "--version"),
        if args.rounds == 1 { "1 round".to_owned() } else { format!("{} rounds", args.rounds) },
        args.seconds,
        versions(args)?
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect::<Vec<_>>()
            .join(", "),
    );
    if let Some((median, most)) = figures.others() {
        writeln!(
            text,
            "Other programs used {median:.2} cores meanwhile in the median, and {most:.2} at most."
        )?;
    }
    Ok(text)
}

fn write_table(
    text: &mut String,
    title: &str,
    columns: &[&Column],
    idle: bool,
    pin: &Pin,
    args: &Args,
    figures: &Figures,
) -> Result<()> {
    writeln!(text, "\n### {title}\n")?;
    let mut heads: Vec<_> = columns.iter().map(|column| column.head).collect();
    if idle {
        heads.insert(0, "idle");
    }
    writeln!(text, "| | {} |\n|---|{}", heads.join(" | "), "---:|".repeat(heads.len()))?;
    for peer in &args.peers {
        let row = (peer.name, *pin);
        let mut cells: Vec<_> = columns.iter().map(|column| shown(column, row, figures)).collect();
        if idle {
            let [client, servers] = ["client_mib", "server_mib"].map(|key| figures.before(row, key));
            cells.insert(0, pair(client, servers));
        }
        writeln!(text, "| {} | {} |", peer.name, cells.join(" | "))?;
    }
    Ok(())
}

fn shown(column: &Column, row: Row, figures: &Figures) -> String {
    let value = |key| figures.load(row, column.load, key);
    match column.kind {
        Kind::Key(key) => number(value(key)),
        Kind::Thousands => match value("rate") {
            Cell::Value(rate) => number(Cell::Value(rate / 1e3)),
            cell => number(cell),
        },
        Kind::Cpu => pair(value("client_cpu"), value("server_cpu")),
        Kind::Memory => pair(value("client_mib"), value("server_mib")),
    }
}

fn pair(client: Cell, servers: Cell) -> String {
    match (client, servers) {
        (Cell::Value(_), Cell::Value(_)) => format!("{} + {}", number(client), number(servers)),
        (cell, _) => number(cell),
    }
}

/// Three digits, and more before the point.
fn number(cell: Cell) -> String {
    match cell {
        Cell::None => "-".to_owned(),
        Cell::Failed => "failed".to_owned(),
        Cell::Value(value) if value >= 99.95 => grouped(value.round() as u64),
        Cell::Value(value) if value >= 9.995 => format!("{value:.1}"),
        Cell::Value(value) => format!("{value:.2}"),
    }
}

/// Digits in groups of three.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// JSON: all rounds of all loads.
pub(crate) fn json(args: &Args, figures: &Figures) -> Result<String> {
    let mut rows = Vec::new();
    for pin in &args.pins {
        for peer in &args.peers {
            let row = (peer.name, *pin);
            for load in &args.loads {
                let rounds = figures.rounds(row, *load);
                if !rounds.is_empty() {
                    rows.push(json!({
                        "pin": pin.name(), "peer": peer.name, "load": load.name(), "rounds": rounds,
                        "rate": median_of(figures.load(row, *load, "rate")),
                        "p50_us": median_of(figures.load(row, *load, "p50_us")),
                        "p99_us": median_of(figures.load(row, *load, "p99_us")),
                        "mb_per_s": median_of(figures.load(row, *load, "mb_per_s")),
                    }));
                }
            }
        }
    }
    let idle: Vec<_> = args
        .pins
        .iter()
        .flat_map(|pin| args.peers.iter().map(move |peer| (peer.name, *pin)))
        .map(|row| {
            let [client, servers] =
                ["client_mib", "server_mib"].map(|key| median_of(figures.before(row, key)));
            json!({ "pin": row.1.name(), "peer": row.0, "client_mib": client, "server_mib": servers })
        })
        .collect();
    let all = json!({
        "date": output_of("date", "+%F"),
        "compiler": output_of("rustc", "--version"),
        "seconds": args.seconds,
        "rounds": args.rounds,
        "versions": Value::Object(versions(args)?.into_iter().map(|(name, version)| (name, version.into())).collect()),
        "other_cores": figures.others().map(|(median, _)| median),
        "figures": rows,
        "idle": idle,
    });
    Ok(format!("{all:#}\n"))
}

fn median_of(cell: Cell) -> Value {
    match cell {
        Cell::Value(value) => json!(value),
        Cell::None | Cell::Failed => Value::Null,
    }
}

/// First line that a command prints, or its name where it cannot run.
fn output_of(command: &str, argument: &str) -> String {
    let output = Command::new(command).arg(argument).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or(command).to_owned()
}

/// Versions of the peers' crates, from the lock file.
fn versions(args: &Args) -> Result<Vec<(String, String)>> {
    let file = crate::programs::workspace().join("Cargo.lock");
    let lock =
        std::fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
    let mut versions: Vec<(String, String)> = Vec::new();
    for peer in args.peers.iter().filter(|peer| !peer.version_of.is_empty()) {
        if versions.iter().all(|(name, _)| name != peer.version_of) {
            let version = locked(&lock, peer.version_of)
                .with_context(|| format!("{} has no package `{}`", file.display(), peer.version_of))?;
            versions.push((peer.version_of.to_owned(), version.to_owned()));
        }
    }
    Ok(versions)
}

/// Version of a package in a lock file.
fn locked<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let line = lock.lines().skip_while(|line| *line != name).nth(1)?;
    line.strip_prefix("version = \"")?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let shown =
            [0.0, 0.126, 9.999, 18.04, 99.96, 1234.4, 1_234_567.0].map(|value| number(Cell::Value(value)));
        assert_eq!(shown, ["0.00", "0.13", "10.0", "18.0", "100", "1,234", "1,234,567"]);
        assert_eq!((number(Cell::None), number(Cell::Failed)), ("-".to_owned(), "failed".to_owned()));
        assert_eq!(pair(Cell::Value(1.0), Cell::Value(20.0)), "1.00 + 20.0");
        assert_eq!(pair(Cell::Failed, Cell::Failed), "failed");
    }

    #[test]
    fn versions_are_found_in_a_lock_file() {
        let lock =
            "[[package]]\nname = \"tokio\"\nversion = \"1.2.3\"\n\n[[package]]\nname = \"tokio-util\"\n";
        assert_eq!(locked(lock, "tokio"), Some("1.2.3"));
        assert_eq!(locked(lock, "tonic"), None);
    }

    #[test]
    fn each_load_has_a_column() {
        for load in Load::ALL {
            assert!(MESSAGES.iter().chain(BYTES).any(|column| column.load == load), "{}", load.name());
        }
    }
}
