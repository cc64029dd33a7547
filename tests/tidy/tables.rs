//! Tables of Markdown as text.

use std::collections::BTreeSet;

pub(crate) fn differences(what: &str, listed: &BTreeSet<String>, declared: &BTreeSet<String>) -> Vec<String> {
    let missing = declared.difference(listed).map(|name| format!("{what}: the page has no `{name}`"));
    missing.chain(listed.difference(declared).map(|name| format!("{what}: there is no `{name}`"))).collect()
}

/// The texts between backticks in the first column below a heading, or the whole cells.
pub(crate) fn first_cells(page: &str, heading: &str) -> BTreeSet<String> {
    let cells = section_rows(page, heading).into_iter().filter_map(|row| row.into_iter().next());
    cells.flat_map(|cell| if cell.contains('`') { quoted(&cell) } else { vec![cell] }).collect()
}

pub(crate) fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rows of all tables below a heading, without their headers, up to the next heading.
pub(crate) fn section_rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let is_heading = |line: &&str| line.trim_start_matches('#').trim() == heading && line.starts_with('#');
    let section: Vec<_> = page
        .lines()
        .skip_while(|line| !is_heading(line))
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .collect();
    tables(&section.join("\n")).into_iter().flat_map(|table| table.into_iter().skip(1)).collect()
}

/// The tables of a page, each with its header as the first row.
pub(crate) fn tables(page: &str) -> Vec<Vec<Vec<String>>> {
    let mut found: Vec<Vec<Vec<String>>> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match (line.starts_with('|'), inside) {
            (true, false) => found.push(vec![cells(line)]),
            // The line below the header has no cells.
            (true, true) if !line.starts_with("|--") => {
                found.last_mut().expect("a table has begun").push(cells(line))
            }
            _ => {}
        }
        // Any other line ends the table.
        inside = line.starts_with('|');
    }
    found
}

pub(crate) fn cells(line: &str) -> Vec<String> {
    // An escaped `|` is text of a cell. The control character stands for it while the line is split.
    let line = line.replace("\\|", "\u{1}");
    let cells = line.trim().trim_matches('|').split('|');
    cells.map(|cell| cell.trim().replace('\u{1}', "|")).collect()
}
