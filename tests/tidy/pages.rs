//! Checks of the pages: links, anchors, images, code blocks and sample output here, tables in the modules below.

#[path = "chain.rs"]
mod chain;
#[path = "commands.rs"]
mod commands;
#[path = "limits.rs"]
mod limits;
#[path = "reference.rs"]
mod reference;
#[path = "tables.rs"]
mod tables;

use std::collections::{BTreeSet, HashSet};

use super::{check, complain, files_below, read};

#[test]
fn links_anchors_and_images_of_pages_exist() {
    let files = files_below("");
    let pages: Vec<_> = files.iter().filter(|file| file.ends_with(".md")).collect();
    let tree = Tree { files: files.iter().cloned().collect(), anchors: &|page| anchors(&read(page)) };
    complain(pages.iter().flat_map(|page| link_complaints(page, &read(page), &tree)));
}

#[test]
fn every_image_is_shown_and_safe_to_show() {
    // An image that no page shows would not be kept up to date.
    let files = files_below("");
    let shown: BTreeSet<_> = files
        .iter()
        .filter(|file| file.ends_with(".md"))
        .flat_map(|page| links(&read(page)).into_iter().filter_map(|link| below(page, &link.path)))
        .collect();
    let images = files.iter().filter(|file| file.ends_with(".svg"));
    complain(images.flat_map(|image| image_complaints(image, &read(image), shown.contains(image))));
}

#[test]
fn the_readme_shows_what_the_example_prints() {
    complain(sample_complaints(&read("README.md"), "docs/handbook.md", &read("docs/handbook.md")));
}

#[test]
fn code_blocks_say_what_they_are() {
    let pages = files_below("").into_iter().filter(|file| file.ends_with(".md"));
    let lib = read("src/lib.rs");
    complain(pages.flat_map(|page| block_complaints(&page, &read(&page), &lib)));
}

/// Languages of code blocks. Those that begin with `rust` are compiled as doc tests.
const LANGUAGES: &[&str] = &["rust", "rust,no_run", "text", "sh", "toml"];

/// The files and anchors that a page can link to.
struct Tree<'a> {
    files: BTreeSet<String>,
    anchors: &'a dyn Fn(&str) -> BTreeSet<String>,
}

/// A link or an image of a page.
struct Link {
    line: usize,
    text: String,
    path: String,
    anchor: Option<String>,
    is_image: bool,
}

fn link_complaints(page: &str, text: &str, tree: &Tree<'_>) -> Vec<String> {
    let mut complaints = Vec::new();
    for link in links(text) {
        let mut complain = |what: String| complaints.push(format!("{page}:{}: {what}", link.line));
        let target = match link.path.as_str() {
            "" => Some(page.to_owned()),
            path => below(page, path),
        };
        let exists = target.as_ref().is_some_and(|target| {
            // The list has only files. A link to a folder needs a file below it.
            let folder = format!("{target}/");
            tree.files.contains(target) || tree.files.iter().any(|file| file.starts_with(&folder))
        });
        if !exists {
            complain(format!("`{}` is not there", link.path));
        } else if let (Some(anchor), Some(target)) = (&link.anchor, &target)
            && !(tree.anchors)(target).contains(anchor)
        {
            complain(format!("{target} has no heading `#{anchor}`"));
        }
        if link.is_image && link.text.trim().is_empty() {
            complain(format!("the image `{}` has no text for readers who do not see it", link.path));
        }
    }
    complaints
}

/// An image is a file of a few kilobytes that loads nothing else, and that a dark page can show.
fn image_complaints(image: &str, text: &str, is_shown: bool) -> Vec<String> {
    const BYTES_MAX: usize = 16 << 10;
    let wrong = [
        (!is_shown, "is shown by no page"),
        (text.len() > BYTES_MAX, "is larger than 16 KiB"),
        (!text.contains("<title"), "has no title"),
        (!text.contains("prefers-color-scheme: dark"), "has no colours for dark pages"),
        (
            text.contains("@import") || text.contains("url(http") || text.contains("href"),
            "loads something else",
        ),
    ];
    wrong.into_iter().filter(|(is_so, _)| *is_so).map(|(_, what)| format!("{image} {what}")).collect()
}

/// Code blocks of another language, and Rust of a page that is not among the crate's doc tests.
fn block_complaints(page: &str, text: &str, lib: &str) -> Vec<String> {
    let fences = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("```"));
    let opening =
        // Every second fence opens a block, the others close one.
        fences.step_by(2).map(|(number, line)| (number + 1, line.trim_start().trim_start_matches('`')));
    // Rust that is not compiled would become wrong unnoticed.
    let is_compiled = lib.contains(&format!("include_str!(\"../{page}\")"));
    let wrong = opening.filter_map(|(number, language)| match LANGUAGES.contains(&language) {
        false => Some((number, format!("`{language}`, and not one of {LANGUAGES:?}"))),
        true if language.starts_with("rust") && !is_compiled => {
            Some((number, "Rust, and src/lib.rs does not have the page among its doc tests".to_owned()))
        }
        true => None,
    });
    wrong.map(|(number, what)| format!("{page}:{number}: a code block is {what}")).collect()
}

/// The sample of the example's output counts the words of the text as it is now.
fn sample_complaints(page: &str, name: &str, text: &str) -> Vec<String> {
    // Counted again here, so that a change of the text fails this test until the sample is updated.
    let words = roadshow::words::tokenize(text).expect("the text is short");
    let mut distinct = HashSet::new();
    for word in words.iter() {
        distinct.insert(word.to_owned());
    }
    let most = roadshow::words::Counting::Hash.most_frequent(&words).expect("the text has words");
    let expected = [
        format!("{name}: {} words, {} different\n", words.len(), distinct.len()),
        format!("  {} ({})  ", most.word, most.count),
    ];
    let missing = expected.iter().filter(|sample| !page.contains(*sample));
    missing.map(|sample| format!("the sample of the example's output has no `{}`", sample.trim())).collect()
}

/// The path from the project's root to what `page` names by `path`; none if that is outside.
fn below(page: &str, path: &str) -> Option<String> {
    let mut at: Vec<&str> = page.split('/').collect();
    at.pop();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            // A path that leaves the project is no file of it.
            ".." => drop(at.pop()?),
            name => at.push(name),
        }
    }
    Some(at.join("/"))
}

/// The links within the project, outside of code.
fn links(text: &str) -> Vec<Link> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let mut at = 0;
        while let Some(middle) = line[at..].find("](").map(|offset| at + offset) {
            at = middle + 2;
            let Some(target) = line[at..].split(')').next() else { break };
            // The last bracket before `](` opens this link.
            let begin = line[..middle].rfind('[').unwrap_or(middle);
            let (path, anchor) =
                target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
            if !["http:", "https:", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
                found.push(Link {
                    line: number,
                    text: line[begin..middle].trim_start_matches('[').to_owned(),
                    path: path.to_owned(),
                    anchor: anchor.map(str::to_owned),
                    is_image: line[..begin].ends_with('!'),
                });
            }
        }
    }
    found
}

/// The names by which GitHub's renderer and rustdoc find headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, line) in prose_with_code(text) {
        let Some(title) = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')) else { continue };
        // GitHub drops punctuation from anchors, and numbers repeated ones.
        let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect();
        let again = (1..).map(|n| format!("{slug}-{n}")).find(|name| !found.contains(name));
        let slug = if found.contains(&slug) { again.unwrap_or(slug) } else { slug };
        found.insert(slug);
    }
    found
}

/// The lines outside of code blocks, without what is between backticks.
fn prose(text: &str) -> Vec<(usize, String)> {
    let lines = prose_with_code(text).into_iter();
    // Code is dropped, because it may look like a link: `a[i](x)`.
    lines.map(|(number, line)| (number, line.split('`').step_by(2).collect::<Vec<_>>().join("``"))).collect()
}

/// The lines outside of code blocks.
fn prose_with_code(text: &str) -> Vec<(usize, &str)> {
    let mut in_block = false;
    let mut kept = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            kept.push((number + 1, line));
        }
    }
    kept
}

#[test]
fn the_link_check_sees_what_is_missing() {
    let tree = Tree {
        files: ["README.md", "docs/a.md", "docs/images/p.svg"].map(str::to_owned).into(),
        anchors: &|page| {
            anchors(if page == "docs/a.md" { "# Top\n## A `b`, c\n## Top\n```text\n# no\n```" } else { "" })
        },
    };
    let of = |page: &str, text: &str, expected| check(&link_complaints(page, text, &tree), expected);
    of(
        "README.md",
        "[a](docs/a.md), [b](docs/a.md#a-b-c) and [c](docs/a.md#top-1), [d](docs) [e](https://x.org/y.md)",
        0,
    );
    of("docs/a.md", "[a](#top), [r](../README.md) and ![p](images/p.svg)", 0);
    of("README.md", "[a](docs/b.md)", 1);
    of("README.md", "[a](docs/a.md#no) and [b](docs/a.md#a-b)", 2);
    of("docs/a.md", "[a](../../README.md)\n[b](docs/a.md)", 2);
    of("docs/a.md", "![](images/p.svg) ![p](images/q.svg)", 2);
    of("README.md", "`[a](no.md)`\n```text\n[a](no.md)\n```\n", 0);
}

#[test]
fn the_image_check_sees_what_is_wrong() {
    let fine = "<svg><title>t</title><style>@media (prefers-color-scheme: dark) {}</style></svg>";
    check(&image_complaints("a.svg", fine, true), 0);
    check(&image_complaints("a.svg", fine, false), 1);
    check(&image_complaints("a.svg", "<svg/>", true), 2);
    check(&image_complaints("a.svg", &fine.replace("{}", "{} @import url(http://a)"), true), 1);
    check(&image_complaints("a.svg", &format!("{fine}{}", " ".repeat(17 << 10)), true), 1);
}

#[test]
fn the_block_check_sees_what_is_neither_compiled_nor_text() {
    let lib = "#[doc = include_str!(\"../a.md\")]";
    check(&block_complaints("a.md", "```rust\n```\n```text\n```\n", lib), 0);
    check(&block_complaints("b.md", "```rust,no_run\n```\n```text\n```\n", lib), 1);
    check(&block_complaints("a.md", "```\nx\n```\n```rust,ignore\n```\n```sh\nx\n```\n", lib), 2);
}

#[test]
fn the_sample_check_sees_another_text() {
    let page = "x: 4 words, 3 different\n\nslices  list  a (2)  1.0\n";
    check(&sample_complaints(page, "x", "a b A c"), 0);
    check(&sample_complaints(page, "x", "a b c d"), 2);
    check(&sample_complaints(page, "y", "a b A c"), 1);
}
