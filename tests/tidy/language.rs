//! Language of comments and pages: headlines name a thing, and some words hide what is meant.

use super::{all_rust_files, complain, files_below, read};

/// First words of headlines that paraphrase a thing instead of naming it.
const NO_NOUNS: &[&str] = &[
    "what", "whatever", "whether", "why", "how", "who", "whom", "whose", "whoever", "where", "so", "it",
    "they", "those", "one", "such", "that", "these",
];

/// Words that make persons of processes, or measures without a quantity.
const VAGUE: &[&str] = &["whoever", "nobody", "somebody", "everybody", "so many", "so much"];

/// The file that lists the words.
const THIS: &str = "tests/tidy/language.rs";

#[test]
fn headlines_name_a_thing_or_say_what_it_does() {
    complain(all_rust_files().iter().flat_map(|file| headline_complaints(file, &read(file))));
}

#[test]
fn comments_and_pages_use_no_vague_words() {
    let files = files_below("").into_iter().filter(|file| {
        (file.ends_with(".rs") || file.ends_with(".md")) && file != THIS && !file.starts_with("LICENSE")
    });
    complain(files.flat_map(|file| vague_complaints(&file, &read(&file))));
}

fn headline_complaints(file: &str, source: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut above = "";
    for (number, line) in source.lines().enumerate() {
        let line = line.trim();
        let marker = ["///", "//!"].into_iter().find(|marker| line.starts_with(marker));
        if let Some(marker) = marker.filter(|marker| !above.starts_with(marker)) {
            let words = line[marker.len()..].split(|c: char| !c.is_alphanumeric());
            let first = words.into_iter().find(|word| !word.is_empty()).unwrap_or_default().to_lowercase();
            if NO_NOUNS.contains(&first.as_str()) {
                complaints.push(format!("{file}:{}: name the thing: `{line}`", number + 1));
            }
        }
        above = line;
    }
    complaints
}

fn vague_complaints(file: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.to_lowercase();
        // A Unix user, in code spans, strings and options.
        let line = ["`nobody`", "\"nobody", "=nobody"].iter().fold(line, |line, user| line.replace(user, ""));
        let padded = format!(" {} ", line.replace(|c: char| !c.is_alphanumeric(), " "));
        let found = VAGUE.iter().filter(|word| padded.contains(&format!(" {word} ")));
        complaints.extend(found.map(|word| format!("{file}:{}: `{word}`", number + 1)));
    }
    complaints
}

#[test]
fn the_language_checks_see_what_they_look_for() {
    let headlines = |source: &str| headline_complaints("a.rs", source).len();
    assert_eq!(headlines("//! What it is for.\n\n/// Whether it lives.\nfn f() {}\n"), 2);
    assert_eq!(headlines("//! Queue of events.\n//! What follows is no headline.\n"), 0);
    assert_eq!(headlines("/// Returns whether it lives.\n"), 0);
    let vague = |text: &str| vague_complaints("a.md", text).len();
    assert_eq!(vague("Whoever asks, asks so many times.\nNobody."), 3);
    assert_eq!(vague("The user `nobody` owns it; somebodyelse is one word."), 0);
}
