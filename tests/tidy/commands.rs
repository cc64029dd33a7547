//! Commands and options in the pages against the definitions for clap.

use std::collections::{BTreeMap, BTreeSet};

use super::tables::{differences, section_rows};
use crate::{check, complain, files_below, read, rust_files};

#[test]
fn the_page_lists_the_options_of_each_command() {
    complain(option_complaints(&read("docs/cli.md"), &declared()));
}

#[test]
fn pages_call_the_command_as_it_can_be_called() {
    let declared = declared();
    // The changelog names commands of earlier versions.
    let is_of_today = |file: &String| file.ends_with(".md") && file != "CHANGELOG.md";
    let pages = files_below("").into_iter().filter(is_of_today);
    complain(pages.flat_map(|page| usage_complaints(&page, &read(&page), &declared)));
}

/// The long options of each command, and under no name those of all commands that ask a cluster.
type Options = BTreeMap<String, BTreeSet<String>>;

fn declared() -> Options {
    let files = rust_files("src/bin/roadshow");
    let main = files.iter().map(|file| read(file)).find(|source| source.contains("fn main("));
    let commands = commands(&main.expect("the command has a main"));
    let mut options: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    // A command without options needs an entry, too: the page must have its section.
    commands.iter().for_each(|command| drop(options.insert(command.clone(), BTreeSet::new())));
    for file in &files {
        let owner =
            // A file below a command's folder, or with its name, declares options of that command.
            file.split(['/', '.']).map(|part| part.replace('_', "-")).find(|part| commands.contains(part));
        options.entry(owner.unwrap_or_default()).or_default().extend(self::options(&read(file)));
    }
    options
}

/// The public commands: variants of `enum Command` that are not hidden.
fn commands(main: &str) -> BTreeSet<String> {
    let body = main
        .split_once("enum Command {")
        .and_then(|(_, rest)| rest.split_once("\n}"))
        .map_or("", |(body, _)| body);
    let mut is_hidden = false;
    let mut found = BTreeSet::new();
    for line in body.lines().map(str::trim) {
        // The attribute stands on a line before its variant.
        is_hidden |= line.contains("hide = true");
        if line.starts_with(char::is_uppercase) {
            let name = line.split(['(', ',', ' ']).next().unwrap_or_default();
            if !is_hidden {
                found.insert(kebab(name));
            }
            is_hidden = false;
        }
    }
    found
}

/// The long options that a file declares for clap: fields below `#[arg(long, ..)]`.
fn options(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rest in source.split("#[arg(").skip(1) {
        let Some((attribute, field)) = rest.split_once(")]") else { continue };
        // Options without `long` are positional arguments.
        if !attribute.split([',', ' ', '(']).any(|word| word.trim() == "long")
            || attribute.contains("hide = true")
        {
            continue;
        }
        let mut lines =
            field.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '/']));
        let name = lines.next().and_then(|line| line.split_once(':')).map_or("", |(name, _)| name);
        found.insert(format!(
            "--{}",
            name.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ").replace('_', "-")
        ));
    }
    found
}

fn option_complaints(page: &str, options: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (command, declared) in options {
        let section = match command.as_str() {
            "" => "Options of all commands that ask a cluster".to_owned(),
            name => format!("`roadshow {name}`"),
        };
        let cells = section_rows(page, &section).into_iter().filter_map(|row| row.into_iter().next());
        let words = cells.flat_map(|cell| cell.split(['`', ' ', ',']).map(str::to_owned).collect::<Vec<_>>());
        let listed = words.filter(|word| word.starts_with("--")).collect();
        complaints.extend(differences(&section, &listed, declared));
    }
    let sections = page.lines().filter_map(|line| line.strip_prefix("## `roadshow ")?.strip_suffix('`'));
    complaints.extend(
        sections
            .filter(|name| !options.contains_key(*name))
            .map(|name| format!("there is no command `{name}`")),
    );
    complaints
}

/// Commands and options in the code of a page that are not there.
fn usage_complaints(page: &str, text: &str, declared: &Options) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for called in calls(line) {
            let mut words = called.split_whitespace();
            let command = words.next().unwrap_or_default();
            let Some(options) = declared.get(command) else {
                complaints.push(format!("{page}:{}: there is no command `roadshow {command}`", number + 1));
                continue;
            };
            // Options after `--` belong to the submitted program.
            let options_there = words.take_while(|word| *word != "--").filter(|word| word.starts_with("--"));
            for option in options_there {
                let end = |c: char| !(c.is_ascii_lowercase() || c == '-');
                // Cuts `=value` and punctuation of the sentence.
                let option = option.split(end).next().unwrap_or_default();
                // The options of all commands are declared under no name. Clap adds `--help` itself.
                if !(options.contains(option) || declared[""].contains(option) || option == "--help") {
                    complaints.push(format!("{page}:{}: `roadshow {command}` has no `{option}`", number + 1));
                }
            }
        }
    }
    complaints
}

/// The arguments of every call of `roadshow` in a line.
fn calls(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, name) in line.match_indices("roadshow ") {
        // `useradd roadshow` matches here as well; the next check drops it, since no command follows.
        let begins = line[..at].is_empty() || line[..at].ends_with(['`', ' ']);
        let called = line[at + name.len()..].split(['`', ';', '#']).next().unwrap_or_default();
        let called = called.split(" | ").next().unwrap_or_default().split(" || ").next().unwrap_or_default();
        let command = called.split_whitespace().next().unwrap_or_default();
        // In prose the name of the project is written in capitals, and a crate or an account has no command.
        if begins
            && !command.is_empty()
            && command.chars().all(|c| c.is_ascii_lowercase() || c == '-')
            && !command.starts_with('-')
        {
            found.push(called.to_owned());
        }
    }
    found
}

fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for c in name.chars() {
        // Clap names a variant in the same way.
        if c.is_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.push(c.to_ascii_lowercase());
    }
    kebab
}

#[test]
fn an_option_that_is_not_listed_is_complained_of() {
    let main = "enum Command {\n    Start(A),\n    /// No.\n    #[command(hide = true)]\n    Internal,\n    HealthCheck(B),\n}\n";
    assert_eq!(commands(main), ["health-check", "start"].map(str::to_owned).into());
    let declared = options(
        "#[arg(long, value_name = \"N\")]\n    pub(crate) num_cpus: u8,\n#[arg(value_name = \"long\")]\n    kind: u8,\n    #[arg(\n        long)]\n    /// All.\n    all: bool,\n",
    );
    assert_eq!(declared, ["--all", "--num-cpus"].map(str::to_owned).into());
    let options = [("start".to_owned(), declared)].into();
    let page = |rows: &str| format!("## `roadshow start`\n\n| option | a |\n|---|---|\n{rows}");
    check(&option_complaints(&page("| `-a`, `--all` | x |\n| `--num-cpus N\\|M` | `--x` |\n"), &options), 0);
    check(&option_complaints(&page("| `--all` | x |\n| `--no` | x |\n\n## `roadshow stop`\n"), &options), 3);
}

#[test]
fn a_call_of_what_is_not_there_is_complained_of() {
    let declared: Options =
        [("", vec!["--address"]), ("start", vec!["--head", "--port"]), ("job", vec!["--env"])]
            .into_iter()
            .map(|(name, options)| (name.to_owned(), options.into_iter().map(str::to_owned).collect()))
            .collect();
    let of = |text: &str, expected| check(&usage_complaints("a.md", text, &declared), expected);
    of(
        "`roadshow start --head --port=1` and `roadshow job submit --address A -- ./p --mine`, `roadshow start --help`",
        0,
    );
    of("docker run roadshow-image roadshow start --head || roadshow start --port 2", 0);
    of("A='x' roadshow begin --head\n`roadshow start --env`", 2);
    of("/usr/roadshow anything; useradd roadshow --system", 0);
}
