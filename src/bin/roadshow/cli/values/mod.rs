//! Types and parsers of argument values; each value is checked while the command line is parsed.

mod address;
mod node;
mod pair;

pub(crate) use address::{HostPort, host, port};
pub(crate) use node::{Custom, LabelList, bytes, cores, custom, labels, name};
pub(crate) use pair::{FilterArg, significant, variables};

use std::time::Duration;

/// Parses a duration in seconds; zero is allowed.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "it must be a number of seconds, such as 10 or 0.5".to_owned())
}

/// Parses a boolean in the notation of Ray's options.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        _ => Err("it must be 1 or 0, or true or false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_of_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        for text in ["-1", "nan", "inf", "1e300", "soon", ""] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn booleans_are_in_the_notation_of_ray() {
        assert_eq!(["1", "True", "0", "false"].map(switch), [Ok(true), Ok(true), Ok(false), Ok(false)]);
        assert!(switch("2").is_err());
    }
}
