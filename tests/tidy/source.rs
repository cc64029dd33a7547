//! Rust source as text: code without comments, strings and tests, and the paths that it names.
//!
//! The parser covers only what the checks need. It does not expand macros.

/// Source code without comments, and with blanked strings and characters.
///
/// Line numbers do not change.
pub(crate) struct Code(String);

impl Code {
    /// Reads the code of one file.
    pub(crate) fn of(source: &str) -> Self {
        Self(blank(source))
    }

    /// Removes the items under `#[cfg(test)]`.
    pub(crate) fn without_tests(&self) -> Self {
        let mut text = self.0.clone();
        // Removed one by one: an offset from before a removal would be wrong after it.
        while let Some(start) = CFG_TEST.iter().find_map(|attribute| text.find(attribute)) {
            let end = start + end_of_item(&text[start..]);
            // Newlines stay, so that complaints name the lines of the file.
            let lines = text[start..end].matches('\n').count();
            text.replace_range(start..end, &"\n".repeat(lines));
        }
        Self(text)
    }

    /// Returns the remaining text.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Counts the lines with code.
    pub(crate) fn lines(&self) -> usize {
        self.0.lines().filter(|line| !line.trim().is_empty()).count()
    }

    /// Finds every path that starts with one of `roots`; grouped imports are expanded.
    pub(crate) fn paths(&self, roots: &[&str]) -> Vec<NamedPath> {
        let tokens = tokens(&self.0);
        let mut found = Vec::new();
        for at in 0..tokens.len() {
            let (line, token) = tokens[at];
            let begins = roots.contains(&token)
                && tokens.get(at + 1).is_some_and(|(_, next)| *next == "::")
                && (at == 0 || tokens[at - 1].1 != "::")
                // A `super` inside a group is found from the root of the whole path.
                && !(token == "super" && at >= 2 && matches!(tokens[at - 1].1, "{" | ",") && in_use_group(&tokens[..at]));
            if begins {
                let mut rest = &tokens[at..];
                expand(&mut rest, &[], line, &mut found);
            }
        }
        found
    }

    /// Lists the names that the file makes public: its items, and the leaves of its `pub use`.
    ///
    /// Each comes with the path that it stands for.
    pub(crate) fn public_names(&self) -> Vec<(String, Vec<String>)> {
        const ITEMS: [&str; 9] = ["mod", "fn", "struct", "enum", "trait", "type", "const", "static", "union"];
        let tokens = tokens(&self.0);
        let mut names = Vec::new();
        for at in 0..tokens.len().saturating_sub(2) {
            let (line, next) = (tokens[at].0, tokens[at + 1].1);
            // The name comes after `macro_rules` and `!`. A macro has no `pub`.
            if tokens[at].1 == "macro_rules" {
                names.push((tokens[at + 2].1.to_owned(), Vec::new()));
            }
            if tokens[at].1 != "pub" {
                continue;
            }
            if ITEMS.contains(&next) {
                names.push((tokens[at + 2].1.to_owned(), vec![tokens[at + 2].1.to_owned()]));
            // `pub(crate) use` has `(` as its next token, so it does not count as public.
            } else if next == "use" {
                let mut leaves = Vec::new();
                expand(&mut &tokens[at + 2..], &[], line, &mut leaves);
                names.extend(leaves.into_iter().map(|leaf| (leaf.name.clone(), leaf.segments)));
            }
        }
        names
    }
}

/// Path that the code names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NamedPath {
    /// Line number, starting at 1.
    pub(crate) line: usize,
    /// Path from its root.
    pub(crate) segments: Vec<String>,
    /// Name of the path in this file, which differs after `as`.
    name: String,
}

type Token<'a> = (usize, &'a str);

const CFG_TEST: &[&str] = &["#[cfg(test)]", "#[cfg(all(test"];

/// Tests if the last open brace belongs to a `use`.
fn in_use_group(tokens: &[Token<'_>]) -> bool {
    let mut depth = 0_usize;
    // Backwards, because the `use` that a group belongs to stands before all of its braces.
    for (_, token) in tokens.iter().rev() {
        match *token {
            "}" => depth += 1,
            "{" => depth = depth.saturating_sub(1),
            ";" => return false,
            "use" => return true,
            _ => {}
        }
    }
    false
}

/// Parses one path, or a tree of paths, from the front of `tokens`.
fn expand(tokens: &mut &[Token<'_>], prefix: &[String], line: usize, found: &mut Vec<NamedPath>) {
    let mut segments = prefix.to_vec();
    while let Some((&(_, token), rest)) = tokens.split_first() {
        *tokens = rest;
        if token == "{" {
            while let Some((_, next)) = tokens.first() {
                match *next {
                    "," => *tokens = &tokens[1..],
                    "}" => break,
                    _ => expand(tokens, &segments, line, found),
                }
            }
            *tokens = tokens.get(1..).unwrap_or_default();
            return;
        }
        // `a::{self}` names `a`. At the start of a path, `self` is a root.
        if token != "self" || segments.is_empty() {
            segments.push(token.to_owned());
        }
        // A turbofish (`::<`) ends the path.
        let goes_on = |(_, next): &Token<'_>| is_word(next) || matches!(*next, "{" | "*");
        if tokens.first().is_some_and(|(_, next)| *next == "::") && tokens.get(1).is_some_and(goes_on) {
            *tokens = &tokens[1..];
            continue;
        }
        break;
    }
    let mut name = segments.last().cloned().unwrap_or_default();
    if let [(_, "as"), (_, alias), ..] = tokens {
        name = (*alias).to_owned();
        *tokens = &tokens[2..];
    }
    // Tokens other than a path are skipped, so that the group always ends.
    let ends = |token: &str| matches!(token, "," | "}" | ";" | "{");
    if !prefix.is_empty() {
        while tokens.first().is_some_and(|(_, next)| !ends(next)) {
            *tokens = &tokens[1..];
        }
    }
    found.push(NamedPath { line, segments, name });
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Splits text into words, `::` and single characters, each with its line.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (number, mut rest) in text.lines().enumerate() {
        rest = rest.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let length = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                word => word,
            };
            tokens.push((number + 1, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Returns the end of the item that starts with an attribute: after its body, or after its semicolon.
fn end_of_item(text: &str) -> usize {
    // Semicolons within brackets, as in `[u8; 4]`, do not end the item.
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            // Strings are blanked already, so every bracket here is code.
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                // Only a brace ends an item: the attribute itself ends with `]`.
                if depth == 0 && c == '}' {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Replaces comments and the contents of literals by spaces.
fn blank(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let (length, kept) = match literal_or_comment(rest, text.chars().next_back()) {
            Some(length) => (length, false),
            None => (c.len_utf8(), true),
        };
        let (piece, after) = rest.split_at(length);
        if kept {
            text.push_str(piece);
        } else {
            text.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = after;
    }
    text
}

/// Returns the length of the comment, string or character at the start of `text`.
fn literal_or_comment(text: &str, before: Option<char>) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment(text));
    }
    // In `hour"..."` the `r` belongs to a name and starts no raw string.
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if !in_word && let Some(length) = raw_string(text) {
        return Some(length);
    }
    if text.starts_with('"') {
        return Some(quoted(text, '"'));
    }
    // A lifetime has no closing quote, so only an escape or a quote proves a character literal.
    let mut chars = text.chars();
    let is_char = chars.next() == Some('\'') && (chars.next() == Some('\\') || chars.next() == Some('\''));
    is_char.then(|| quoted(text, '\''))
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            // Block comments nest in Rust.
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += rest.chars().next().map_or(0, char::len_utf8);
        }
        if depth == 0 || at == text.len() {
            return at;
        }
    }
}

fn raw_string(text: &str) -> Option<usize> {
    let inner =
        text.strip_prefix("br").or_else(|| text.strip_prefix("cr")).or_else(|| text.strip_prefix('r'))?;
    let hashes = inner.len() - inner.trim_start_matches('#').len();
    let body = inner[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close).map_or(body.len(), |at| at + close.len());
    Some(text.len() - body.len() + end)
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            // The next character is content, even if it is the quote.
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

#[test]
fn comments_strings_and_characters_are_not_code() {
    let code = Code::of(
        "a /* b /* c */ d */ e // f\ng(\"h // \\\" i\", r#\"j \" k\"#, '\\'', 'l', b'm') 'n: loop {}",
    );
    let words: Vec<_> =
        tokens(code.text()).into_iter().map(|(_, token)| token).filter(|token| is_word(token)).collect();
    assert_eq!(words, ["a", "e", "g", "b", "n", "loop"]);
}

#[test]
fn test_items_are_removed_and_line_numbers_stay() {
    let code = Code::of(
        "one();\n#[cfg(test)]\nmod tests {\n    two();\n}\nthree();\n#[cfg(test)]\nuse x::four;\nfive();\n",
    );
    let code = code.without_tests();
    let words: Vec<_> = tokens(code.text()).into_iter().filter(|(_, token)| is_word(token)).collect();
    assert_eq!(words, [(1, "one"), (6, "three"), (9, "five")]);
    assert_eq!(code.lines(), 3);
}

#[test]
fn grouped_imports_and_inline_paths_are_found() {
    let code = Code::of(
        "use crate::{a, b::{self, C as D}, super::e};\nfn f() -> crate::g::H<u8> { pub_crate::x() }\npub(crate) fn i() { super::super::j::<u8>(); }",
    );
    let shown: Vec<_> = code
        .paths(&["crate", "super"])
        .iter()
        .map(|p| format!("{}:{}", p.line, p.segments.join(".")))
        .collect();
    assert_eq!(
        shown,
        ["1:crate.a", "1:crate.b", "1:crate.b.C", "1:crate.super.e", "2:crate.g.H", "3:super.super.j"]
    );
}

#[test]
fn public_names_are_items_and_leaves() {
    let code = Code::of(
        "mod a;\npub mod b;\npub use a::{C, d::E as F};\npub(crate) use a::G;\npub fn h() {}\nuse a::I;\nmacro_rules! j { () => {} }",
    );
    let names: Vec<_> =
        code.public_names().into_iter().map(|(name, path)| format!("{name}={}", path.join("."))).collect();
    assert_eq!(names, ["b=b", "C=a.C", "F=a.d.E", "h=h", "j="]);
}
