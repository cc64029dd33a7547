//! Errors of clap as one line with the next step.

use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::error::one_line;
use crate::exit;

/// Prints the help or the error, and returns the exit code.
pub(crate) fn end(error: &clap::Error, roadshow: &clap::Command) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe is no failure: `roadshow --help | head -1` succeeds.
            let _ = error.print();
            ExitCode::from(exit::OK)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(exit::USAGE)
        }
        _ => {
            let given = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
            eprintln!("{}", line(&error.to_string(), &command(given, roadshow)));
            ExitCode::from(exit::USAGE)
        }
    }
}

/// Reduces clap's rendering to the error and its tip, without the usage.
fn line(rendered: &str, command: &str) -> String {
    // clap renders "error", "tip", "usage" and a closing line as paragraphs. Its error context has the parts,
    // too, but each kind of error has other parts.
    let ends = ["\n\nUsage:", "\n\nFor more information"].map(|end| rendered.find(end));
    let end = ends.into_iter().flatten().min().unwrap_or(rendered.len());
    let parts = rendered[..end].split("\n\n").map(one_line).filter(|part| !part.is_empty());
    format!("{}; `{command} --help` explains", parts.collect::<Vec<_>>().join("; "))
}

/// Names the subcommand that was given, without its arguments.
fn command(mut given: impl Iterator<Item = String>, roadshow: &clap::Command) -> String {
    let (mut words, mut at) = (vec![roadshow.get_name()], roadshow);
    while let Some(next) = given.next().and_then(|word| at.find_subcommand(word)) {
        words.push(next.get_name());
        at = next;
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn an_error_is_one_line_with_the_help_that_explains() {
        let rendered = "error: unexpected argument '--x' found\n\n  tip: to pass '--x' as a value, use '-- --x'\n\n\
            Usage: roadshow job submit [OPTIONS] -- <PROGRAM>...\n\nFor more information, try '--help'.\n";
        let expected = "error: unexpected argument '--x' found; tip: to pass '--x' as a value, use '-- --x'; \
            `roadshow job submit --help` explains";
        assert_eq!(line(rendered, "roadshow job submit"), expected);
        let rendered = "error: these were not provided:\n  <A>\n\nFor more information, try '--help'.\n";
        assert_eq!(
            line(rendered, "roadshow"),
            "error: these were not provided: <A>; `roadshow --help` explains"
        );
    }

    #[test]
    fn the_command_is_what_was_given_as_far_as_it_is_one() {
        let roadshow = crate::Cli::command();
        let named = |given: &[&str]| command(given.iter().map(|word| (*word).to_owned()), &roadshow);
        assert_eq!(named(&["job", "submit", "x"]), "roadshow job submit");
        assert_eq!(named(&["list", "things"]), "roadshow list");
        assert_eq!(named(&["lists"]), "roadshow");
        assert_eq!(named(&[]), "roadshow");
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        fn check(command: &clap::Command) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name}");
            if command.has_subcommands() {
                command.get_subcommands().filter(|command| !command.is_hide_set()).for_each(check);
            } else if name != "microbenchmark" {
                let help = command.get_after_long_help().unwrap_or_else(|| panic!("{name}")).to_string();
                assert!(help.starts_with("Example") && help.contains("  roadshow "), "{name}: {help}");
            }
        }
        let roadshow = crate::Cli::command();
        roadshow.clone().debug_assert();
        check(&roadshow);
    }
}
