//! Language of comments and pages: headlines name a thing, some words hide what is meant, and sentences of
//! pages are short.

use super::{all_rust_files, complain, files_below, read};

/// First words of headlines that paraphrase a thing instead of naming it.
const NO_NOUNS: &[&str] = &[
    "what", "whatever", "whether", "why", "how", "who", "whom", "whose", "whoever", "where", "so", "it",
    "they", "those", "one", "such", "that", "these",
];

/// Words that make persons of processes, or measures without a quantity.
const VAGUE: &[&str] = &["whoever", "nobody", "somebody", "everybody", "so many", "so much"];

/// Maximum length of a sentence on a page, in words; inline code is one word.
///
/// The rule is 25. A few more are allowed for lists inside a sentence.
const SENTENCE_WORDS_MAX: usize = 30;

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

#[test]
fn sentences_of_pages_are_short() {
    let pages = files_below("").into_iter().filter(|file| file.ends_with(".md"));
    let pages = pages.filter(|file| !file.contains('/') || file.starts_with("docs/"));
    complain(pages.flat_map(|page| sentence_complaints(&page, &read(&page))));
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

fn sentence_complaints(page: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (line, paragraph) in paragraphs(text) {
        for sentence in sentences(&paragraph) {
            let words =
                sentence.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count();
            if words > SENTENCE_WORDS_MAX {
                complaints.push(format!("{page}:{line}: {words} words: {sentence}"));
            }
        }
    }
    complaints
}

/// Texts of a page with their first lines: paragraphs, list items and cells of tables, without headings and
/// code blocks.
///
/// A changelog ends with its first release, since the text of a release stays as it was.
fn paragraphs(page: &str) -> Vec<(usize, String)> {
    let (mut found, mut is_code, mut continues) = (Vec::<(usize, String)>::new(), false, false);
    for (number, line) in page.lines().enumerate() {
        let line = line.trim();
        let is_release = line.starts_with("## [") && !line.starts_with("## [Unreleased]");
        if is_release {
            break;
        }
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        if is_code || is_fence || line.is_empty() || line.starts_with('#') {
            continues = false;
        } else if line.starts_with('|') {
            found.extend(line.split('|').map(|cell| (number + 1, plain(cell))));
            continues = false;
        } else if let (true, false, Some((_, text))) = (continues, is_item(line), found.last_mut()) {
            *text += &format!(" {}", plain(line));
        } else {
            found.push((number + 1, plain(line)));
            continues = true;
        }
    }
    found
}

fn is_item(line: &str) -> bool {
    let bare = line.trim_start_matches(|c: char| c.is_ascii_digit());
    line.starts_with("- ") || (bare.len() < line.len() && bare.starts_with(". "))
}

/// A line with one word for each inline code, and without the targets of links.
fn plain(line: &str) -> String {
    let pieces = line.split('`').enumerate();
    let line: String = pieces.map(|(index, piece)| if index % 2 == 1 { "CODE" } else { piece }).collect();
    let mut parts = line.split("](");
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| part.split_once(')').map_or(part, |(_, behind)| behind));
    rest.fold(first, |text, behind| text + behind)
}

/// Sentences of a paragraph. A full stop inside a word, as in a version, ends none.
fn sentences(paragraph: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for word in paragraph.split_whitespace() {
        let last = found.last_mut().expect("the list starts with one sentence");
        *last += &format!("{word} ");
        if word.trim_end_matches([')', '*', '"', ']']).ends_with(['.', '?', '!']) {
            found.push(String::new());
        }
    }
    found
}

#[test]
fn the_sentence_check_counts_words_of_text_alone() {
    let complaints = |text: &str| sentence_complaints("a.md", text);
    let words = |n: usize| vec!["word"; n].join(" ");
    let (short, long) = (words(SENTENCE_WORDS_MAX), words(SENTENCE_WORDS_MAX + 1));

    for text in
        [&format!("{long}."), &format!("1. a.\n- {long}"), &format!("{short}\nword"), &format!("| {long} |")]
    {
        assert_eq!(complaints(text).len(), 1, "{text}");
    }
    assert!(complaints(&format!("# A\n\n{long}"))[0].starts_with("a.md:3: 31 words"));
    let half = words(SENTENCE_WORDS_MAX - 3);
    for text in [
        &format!("{short}. {short}! (**{short}.**) {short}"),
        &format!("{short}\n\n{short}\n- {short}\n2. {short}\n| {short} | {short} |"),
        &format!("{half} `{long}`. {half} [word](a b c) - version 1."),
        &format!("# {long}\n```text\n{long}\n```\n## [Unreleased]\n## [0.1.0]\n{long}"),
    ] {
        assert_eq!(complaints(text), [""; 0], "{text}");
    }
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
