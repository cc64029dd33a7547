//! What clap says of a command line, as one line with the next step.

use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::exit;
use crate::failure::one_line;

/// Prints what was asked for, or what is wrong, and gives the exit code.
pub(crate) fn end(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that has had enough is no failure.
            let _ = error.print();
            ExitCode::from(exit::OK)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(exit::USAGE)
        }
        _ => {
            eprintln!("{}", line(&error.to_string()));
            ExitCode::from(exit::USAGE)
        }
    }
}

/// From what clap renders: the error, perhaps a tip, the usage, and where to look.
fn line(rendered: &str) -> String {
    let usage = rendered.find("\n\nUsage:");
    let (what, usage) = rendered.split_at(usage.unwrap_or(rendered.len()));
    let what = what.split("\n\nFor more information").next().unwrap_or(what);
    let parts: Vec<String> = what.split("\n\n").map(one_line).filter(|part| !part.is_empty()).collect();
    let command =
        usage.lines().find_map(|line| line.strip_prefix("Usage: ")).map(command).unwrap_or_default();
    let command = if command.is_empty() { "roadshow".to_owned() } else { command };
    format!("{}; `{command} --help` explains", parts.join("; "))
}

/// The words of a usage up to the first argument.
fn command(usage: &str) -> String {
    let is_word =
        |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
    usage.split_whitespace().take_while(is_word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_the_help_that_explains() {
        let rendered = "error: unexpected argument '--x' found\n\n  tip: to pass '--x' as a value, use '-- --x'\n\n\
            Usage: roadshow job submit [OPTIONS] -- <PROGRAM>...\n\nFor more information, try '--help'.\n";
        let expected = "error: unexpected argument '--x' found; tip: to pass '--x' as a value, use '-- --x'; \
            `roadshow job submit --help` explains";
        assert_eq!(line(rendered), expected);
        let rendered = "error: the following required arguments were not provided:\n  <--head|--address <A>>\n\n\
            Usage: roadshow start <--head|--address <A>>\n\nFor more information, try '--help'.\n";
        let expected = "error: the following required arguments were not provided: <--head|--address <A>>; \
            `roadshow start --help` explains";
        assert_eq!(line(rendered), expected);
        let rendered =
            "error: invalid value 'x' for '--port <N>': no\n\nFor more information, try '--help'.\n";
        assert_eq!(
            line(rendered),
            "error: invalid value 'x' for '--port <N>': no; `roadshow --help` explains"
        );
    }
}
