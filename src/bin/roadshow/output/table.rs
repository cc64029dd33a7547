//! Plain-text tables, and the formats of durations, amounts and missing values in them.

use std::fmt;

use roadshow::model::NodeId;
use serde_json::Value;

use crate::error::one_line;

/// Placeholder for a missing value.
pub(crate) const PLACEHOLDER: &str = "-";

/// Maximum width of a cell in characters; `get` and `--json` show the full text.
const CELL_CHARS_MAX: usize = 44;

/// Length of an abbreviated node id in characters: 32 random bits.
const NODE_CHARS: usize = 8;

/// Maximum length of a number in a table, in characters. Ids are longer, and may consist of digits alone.
const NUMBER_CHARS_MAX: usize = 7;

/// Rows below headers, in columns as wide as their longest cell.
#[derive(Debug)]
pub(crate) struct TextTable {
    headers: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl TextTable {
    pub(crate) const fn new(headers: &'static [&'static str]) -> Self {
        Self { headers, rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.headers.len());
        // Jobs choose class names, labels and messages: no cell may break the table or control the terminal.
        self.rows.push(cells.iter().map(|cell| shortened(&one_line(cell))).collect());
    }

    /// Reports if a column has only numbers, which are right-aligned.
    fn is_numeric(&self, column: usize) -> bool {
        // A leading zero marks an id such as 00000001: ids stay left-aligned.
        let is_number = |cell: &str| {
            cell.parse::<f64>().is_ok()
                && cell.len() <= NUMBER_CHARS_MAX
                && (cell == "0" || !cell.starts_with('0'))
        };
        let mut cells = self.rows.iter().map(|row| row[column].as_str());
        cells.all(|cell| cell == PLACEHOLDER || is_number(cell))
    }
}

impl fmt::Display for TextTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<String> = self.headers.iter().map(|header| (*header).to_owned()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&headers).chain(&self.rows).collect();
        let columns = 0..self.headers.len();
        // In characters, as the padding of `format!` counts.
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let shape: Vec<_> =
            columns.map(|column| (width(column), !self.rows.is_empty() && self.is_numeric(column))).collect();
        for cells in &lines {
            let padded = cells.iter().zip(&shape).map(|(cell, (width, right))| match right {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            });
            writeln!(f, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// Formats names and values as two columns.
pub(crate) fn sheet(entries: &[(&str, String)]) -> String {
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = entries.iter().map(|(name, value)| format!("{name:<width$}  {}\n", one_line(value)));
    lines.collect()
}

fn shortened(cell: &str) -> String {
    match cell.chars().count() > CELL_CHARS_MAX {
        true => cell.chars().take(CELL_CHARS_MAX - 3).chain("...".chars()).collect(),
        false => cell.to_owned(),
    }
}

/// Joins a text to one line that shows in the order of its characters, and that no terminal obeys.
pub(crate) fn safe(text: &str) -> String {
    // Bidirectional controls are no control characters, but reorder what stands around them on some terminals.
    let is_bidi = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    one_line(text).chars().map(|c| if is_bidi(c) { '?' } else { c }).collect()
}

/// Formats a JSON value for people.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => PLACEHOLDER.to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(object) if object.is_empty() => PLACEHOLDER.to_owned(),
        Value::Object(object) => {
            let entries = object.iter().map(|(key, value)| format!("{key}={}", plain(value)));
            entries.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// Abbreviates a node's id; the result still resolves to the node.
pub(crate) fn short(node: NodeId) -> String {
    node.to_string().chars().take(NODE_CHARS).collect()
}

/// Formats a value, or the placeholder if it is missing.
pub(crate) fn or_nothing(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| PLACEHOLDER.to_owned(), |value| value.to_string())
}

/// Formats a number with its noun, in the plural unless it is 1.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Formats a duration in its two largest units.
pub(crate) fn duration(ms: u64) -> String {
    // Two units are precise enough to compare, and keep the column narrow.
    let s = ms / 1000;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        _ => format!("{}d{:02}h", s / 86400, s / 3600 % 24),
    }
}

/// Formats a time in the largest unit that it fills.
pub(crate) fn microseconds(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// Formats an amount of memory in the largest unit that it fills.
pub(crate) fn memory(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (bytes, 0);
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{amount:.0} B"),
        _ => format!("{amount:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_right_aligned() {
        let mut table = TextTable::new(&["NAME", "PID", "STATE"]);
        table.push(vec!["a".to_owned(), "7".to_owned(), "ALIVE".to_owned()]);
        table.push(vec!["counter".to_owned(), "1234".to_owned(), "DEAD".to_owned()]);
        table.push(vec!["x".to_owned(), PLACEHOLDER.to_owned(), String::new()]);
        let expected = "\
NAME      PID  STATE
a           7  ALIVE
counter  1234  DEAD
x           -
";
        assert_eq!(table.to_string(), expected);

        let mut ids = TextTable::new(&["JOB", "N"]);
        ids.push(vec!["00000001".to_owned(), "0".to_owned()]);
        assert_eq!(ids.to_string(), "JOB       N\n00000001  0\n");
    }

    #[test]
    fn table_without_rows_has_headers() {
        assert_eq!(TextTable::new(&["A", "B"]).to_string(), "A  B\n");
    }

    #[test]
    fn cells_are_shortened_and_have_no_control_characters() {
        let mut table = TextTable::new(&["CAUSE"]);
        table.push(vec![format!("\x1b[31mred\n{}", "x".repeat(100))]);
        let text = table.to_string();
        let row = text.lines().nth(1).unwrap();
        assert_eq!(row.chars().count(), CELL_CHARS_MAX);
        assert!(row.starts_with("?[31mred x") && row.ends_with("x..."), "{row}");
    }

    #[test]
    fn sheets_are_aligned() {
        let sheet = sheet(&[("id", "1".to_owned()), ("state", "ALIVE".to_owned())]);
        assert_eq!(sheet, "id     1\nstate  ALIVE\n");
    }

    #[test]
    fn durations_and_memory_have_units() {
        let shown = [999, 61_000, 3_660_000, 90_000_000].map(duration);
        assert_eq!(shown, ["0s", "1m01s", "1h01m", "1d01h"]);
        let shown = [0.0, 1023.0, 1536.0, 8.0 * 1024.0 * 1024.0 * 1024.0].map(memory);
        assert_eq!(shown, ["0 B", "1023 B", "1.5 KiB", "8.0 GiB"]);
        assert_eq!([1, 999, 10_240, 67_108_864].map(microseconds), ["1 µs", "999 µs", "10.2 ms", "67.1 s"]);
    }
}
