//! Parts of an HTML page: escaped text, tables, times and sizes.

use std::fmt::Write as _;

/// Escapes a text for use between tags and in a quoted attribute.
///
/// Control characters are shown as they are in tables of the command: none of them reaches the file.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            control if control.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out
}

/// Cell of a table.
pub(super) enum Cell {
    /// Text, aligned to the left.
    Text(String),
    /// Number or size, aligned to the right.
    Number(String),
    /// Id or name in a fixed-width font.
    Code(String),
    /// State, with a colour of its own beside the text.
    State(&'static str),
    /// No value.
    Nothing,
}

impl Cell {
    pub(super) fn number(value: impl ToString) -> Self {
        Self::Number(value.to_string())
    }

    pub(super) fn code(value: impl ToString) -> Self {
        Self::Code(value.to_string())
    }

    pub(super) fn optional(value: Option<impl ToString>) -> Self {
        value.map_or(Self::Nothing, |value| Self::Text(value.to_string()))
    }

    fn write(&self, out: &mut String) {
        let (class, text) = match self {
            Self::Text(text) => ("", escaped(text)),
            Self::Number(text) => (" class=\"n\"", escaped(text)),
            Self::Code(text) => (" class=\"c\"", escaped(text)),
            Self::State(word) => {
                (" class=\"s\"", format!("<i class=\"{}\"></i>{}", tone(word), escaped(word)))
            }
            Self::Nothing => (" class=\"z\"", "–".to_owned()),
        };
        let _ = write!(out, "<td{class}>{text}</td>");
    }
}

/// Class of a state's colour.
fn tone(state: &str) -> &'static str {
    match state {
        "ALIVE" | "RUNNING" | "SUCCEEDED" | "INFO" => "good",
        "FAILED" | "ERROR" => "bad",
        // Most ends are ordinary.
        "DEAD" | "STOPPED" => "gone",
        _ => "wait",
    }
}

/// Appends a table, or a sentence if it has no rows.
pub(super) fn table(
    out: &mut String,
    headers: &[&str],
    rows: impl IntoIterator<Item = Vec<Cell>>,
    left_out: u64,
    empty: &str,
) {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        let _ = write!(out, "<p class=\"z\">{}</p>", escaped(empty));
        return;
    }
    out.push_str("<div class=\"t\"><table><thead><tr>");
    // A header is aligned as its column, which the first row shows.
    let first = rows.peek().map_or(&[][..], Vec::as_slice);
    for (at, header) in headers.iter().enumerate() {
        let class = if matches!(first.get(at), Some(Cell::Number(_))) { " class=\"n\"" } else { "" };
        let _ = write!(out, "<th scope=\"col\"{class}>{}</th>", escaped(header));
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        row.iter().for_each(|cell| cell.write(out));
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>");
    if left_out > 0 {
        let _ = write!(out, "<p class=\"z\">{left_out} more rows are not in this report.</p>");
    }
}

/// Formats a span of time: `412 ms`, `3.2 s`, `5 min 03 s`, `2 h 05 min`.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Formats microseconds: `85 µs`, `3.2 ms`, `1.4 s`.
pub(super) fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..1_000_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// Formats a time in UTC: `2026-11-29 22:05:07.123`.
pub(super) fn utc(ms: u64) -> String {
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03}", of_day % 1000)
}

/// Year, month and day of the day with this number since 1970, in the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut rest) = (1970, days);
    while rest >= 365 + u64::from(is_leap(year)) {
        rest -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while rest >= lengths[month] {
        rest -= lengths[month];
        month += 1;
    }
    (year, month as u64 + 1, rest + 1)
}

/// Formats a size in bytes: `512 B`, `3.2 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_program_cannot_become_markup() {
        assert_eq!(escaped("<script>\"a\" & 'b'"), "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;");
        assert_eq!(escaped("\u{1b}[2J\tä\n"), "\\u{1b}[2J\tä\n");
    }

    #[test]
    fn times_are_in_utc() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000");
        assert_eq!(utc(951_782_400_001), "2000-02-29 00:00:00.001");
        assert_eq!(utc(1_796_083_199_999), "2026-11-30 23:59:59.999");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01 00:00:00.000");
    }

    #[test]
    fn spans_and_sizes_have_units() {
        let spans = [412, 3_240, 303_000, 7_500_000].map(duration);
        assert_eq!(spans, ["412 ms", "3.2 s", "5 min 03 s", "2 h 05 min"]);
        assert_eq!([85, 3_240, 1_400_000].map(micros), ["85 µs", "3.2 ms", "1.4 s"]);
        assert_eq!([512, 3_355_444, 1 << 40].map(size), ["512 B", "3.2 MiB", "1.0 TiB"]);
    }
}
