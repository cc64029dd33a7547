//! Arguments of the form `KEY=VALUE`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use clap::builder::{OsStringValueParser, TypedValueParser};
use roadshow::admin::{self, Submission};

/// Condition on the rows of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilterArg(pub(crate) admin::Filter);

/// Removes leading zeros from an id.
pub(crate) fn significant(id: &str) -> &str {
    match id.trim_start_matches('0') {
        "" if !id.is_empty() => "0",
        id => id,
    }
}

impl FromStr for FilterArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) =
            text.split_once('=').ok_or("it must be key=value or key!=value, such as state=ALIVE")?;
        let (key, is_equal) = key.strip_suffix('!').map_or((key, true), |key| (key, false));
        let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
        Ok(Self(admin::Filter { key, value, is_equal }))
    }
}

/// Parser for variables of a job's environment, which may contain bytes that are not UTF-8.
pub(crate) fn variables() -> impl TypedValueParser<Value = (OsString, OsString)> {
    OsStringValueParser::new().try_map(|argument| variable(&argument, |name| std::env::var_os(name)))
}

/// Parses `NAME=VALUE`, or `NAME` alone for the value of this command's own variable.
fn variable(
    argument: &OsStr,
    own: impl Fn(&OsStr) -> Option<OsString>,
) -> Result<(OsString, OsString), String> {
    let bytes = argument.as_bytes();
    let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]).to_owned())),
        None => (bytes, None),
    };
    if name.is_empty() {
        return Err("it must be NAME=VALUE, or NAME for a variable of this command's environment".to_owned());
    }
    let name = OsStr::from_bytes(name);
    if Submission::owns_variable(name) {
        return Err("the variable is Roadshow's own, which gives it to the processes that need it".to_owned());
    }
    let value = value.or_else(|| own(name));
    let value = value.ok_or_else(|| format!("{name:?} is not set in this command's environment"))?;
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_is_a_key_and_a_value() {
        let parsed = |text: &str| {
            let FilterArg(admin::Filter { key, value, is_equal }) = text.parse().unwrap();
            (key, value, is_equal)
        };
        assert_eq!(parsed("state=ALIVE"), ("state".to_owned(), "ALIVE".to_owned(), true));
        assert_eq!(parsed("name != a=b"), ("name".to_owned(), "a=b".to_owned(), false));
        assert!("state".parse::<FilterArg>().is_err());
    }

    #[test]
    fn leading_zeros_of_an_id_do_not_count() {
        assert_eq!(["000a", "a", "0", "000", ""].map(significant), ["a", "a", "0", "0", ""]);
    }

    #[test]
    fn variable_has_a_name_and_a_value_of_its_own_or_of_the_command() {
        let own = |name: &OsStr| (name == "SET").then(|| OsString::from("secret"));
        let variable = |text: &[u8]| variable(OsStr::from_bytes(text), own);
        assert_eq!(variable(b"A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(variable(b"A="), Ok(("A".into(), OsString::new())));
        assert_eq!(variable(b"A=caf\xe9"), Ok(("A".into(), OsStr::from_bytes(b"caf\xe9").to_owned())));
        assert!(variable(b"=b").is_err() && variable(b"").is_err());
        for own in
            [&b"ROADSHOW_TOKEN=x"[..], b"ROADSHOW_TOKEN", b"ROADSHOW_STARTED_BY=x", b"ROADSHOW_WORKER=1:2"]
        {
            assert!(variable(own).unwrap_err().contains("Roadshow's own"));
        }
        // `NAME` alone keeps a secret out of the process list.
        assert_eq!(variable(b"SET"), Ok(("SET".into(), "secret".into())));
        assert_eq!(variable(b"SET="), Ok(("SET".into(), OsString::new())));
        assert!(variable(b"UNSET").unwrap_err().contains("\"UNSET\" is not set"));
    }
}
