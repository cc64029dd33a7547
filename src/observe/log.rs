//! Output of the library's own events.
//!
//! In a driver the subscriber is the program's, and nothing here installs one. If it has none, the
//! library's events alone are printed, each through a subscriber that is set for the thread during that
//! event ([`emit`]). Workers and daemons belong to the library, and get a subscriber for the whole
//! process.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, OnceLock};

use tracing::dispatcher::{self, Dispatch};
use tracing::subscriber::NoSubscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;

/// Environment variable with the log filter: a level (`debug`), or levels by target
/// (`roadshow=debug,info`).
pub(crate) const VARIABLE: &str = "ROADSHOW_LOG";

/// Subscriber for a driver's events while its program has none.
static FALLBACK: OnceLock<Dispatch> = OnceLock::new();

/// Logs a daemon's events to standard error as `ROADSHOW_LOG` selects, by default warnings, unless a
/// subscriber is set.
#[cfg(feature = "cli")]
pub(crate) fn init() {
    if !dispatcher::has_been_set() {
        install(stderr(true));
    }
}

/// Logs a worker's events to standard error as [`init`] does, without labels, which are added where the
/// lines are shown.
pub(crate) fn init_labelled() {
    if !dispatcher::has_been_set() {
        install(stderr(false));
    }
}

/// Logs a daemon's events through `write`, which gets one event for each call.
#[cfg(feature = "cli")]
pub(crate) fn init_with(write: impl Fn(&[u8]) -> io::Result<()> + Send + Sync + 'static) {
    install(subscriber(false, true, write));
}

/// Prints the library's events in a driver as a daemon does, while its program has no subscriber.
pub(crate) fn fall_back() {
    if dispatcher::has_been_set() || FALLBACK.get().is_some() {
        return;
    }
    let (fallback, invalid) = stderr(true);
    if FALLBACK.set(fallback).is_ok() {
        // After the fallback is set, so that the warning is printed through it.
        emit(&|| warn_invalid(invalid.as_ref()));
    }
}

/// Emits an event of the library to the current subscriber, or else to the fallback of [`fall_back`].
///
/// Not generic: each event would have a copy of this function.
pub(crate) fn emit(event: &dyn Fn()) {
    match FALLBACK.get() {
        // Checked for each event, since the program may set its subscriber at any time.
        Some(fallback) if dispatcher::get_default(|current| current.is::<NoSubscriber>()) => {
            dispatcher::with_default(fallback, event);
        }
        _ => event(),
    }
}

/// Emits a `tracing::debug!` event, also in a driver without a subscriber.
macro_rules! log_debug {
    ($($event:tt)*) => { $crate::observe::log::emit(&|| ::tracing::debug!($($event)*)) };
}

/// Emits a `tracing::info!` event, also in a driver without a subscriber.
macro_rules! log_info {
    ($($event:tt)*) => { $crate::observe::log::emit(&|| ::tracing::info!($($event)*)) };
}

/// Emits a `tracing::warn!` event, also in a driver without a subscriber.
macro_rules! log_warn {
    ($($event:tt)*) => { $crate::observe::log::emit(&|| ::tracing::warn!($($event)*)) };
}

/// Emits a `tracing::error!` event, also in a driver without a subscriber.
macro_rules! log_error {
    ($($event:tt)*) => { $crate::observe::log::emit(&|| ::tracing::error!($($event)*)) };
}

pub(crate) use {log_debug as debug, log_error as error, log_info as info, log_warn as warn};

/// Invalid value of the variable, and the error.
type InvalidValue = Option<(String, String)>;

fn stderr(is_numbered: bool) -> (Dispatch, InvalidValue) {
    subscriber(io::stderr().is_terminal(), is_numbered, |event| io::stderr().write_all(event))
}

fn subscriber(
    is_terminal: bool,
    is_numbered: bool,
    write: impl Fn(&[u8]) -> io::Result<()> + Send + Sync + 'static,
) -> (Dispatch, InvalidValue) {
    let write = Arc::new(write);
    let (filter, invalid) = filter(std::env::var_os(VARIABLE).as_deref());
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(move || EventWriter { write: Arc::clone(&write), is_numbered })
        .with_ansi(is_terminal)
        .with_filter(filter);
    (Dispatch::new(tracing_subscriber::registry().with(layer)), invalid)
}

/// Filter for the variable's value.
fn filter(value: Option<&OsStr>) -> (Targets, InvalidValue) {
    let Some(value) = value else { return (quiet(), None) };
    let parsed = match value.to_str() {
        Some(text) => text.parse::<Targets>().map_err(|error| error.to_string()),
        None => Err("it is not text".to_owned()),
    };
    match parsed {
        Ok(filter) => (filter, None),
        Err(why) => (quiet(), Some((value.to_string_lossy().into_owned(), why))),
    }
}

fn install((subscriber, invalid): (Dispatch, InvalidValue)) {
    // Setting fails if the program has set its own subscriber, which takes precedence.
    if dispatcher::set_global_default(subscriber).is_ok() {
        warn_invalid(invalid.as_ref());
    }
}

fn warn_invalid(invalid: Option<&(String, String)>) {
    if let Some((value, error)) = invalid {
        tracing::warn!(value, error, "{VARIABLE} is invalid; set it to `debug` or `roadshow=debug,info`");
    }
}

/// Writer that puts the process id before each event, for processes that share a standard error.
///
/// tracing-subscriber writes an event in a single call, so lines of several processes do not mix.
struct EventWriter<W> {
    write: Arc<W>,
    is_numbered: bool,
}

impl<W: Fn(&[u8]) -> io::Result<()>> Write for EventWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let number = if self.is_numbered { format!("[{}] ", std::process::id()) } else { String::new() };
        // A single write, so that lines of several processes do not mix.
        (self.write)(&[number.as_bytes(), event].concat())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn quiet() -> Targets {
    Targets::new().with_default(LevelFilter::WARN)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn an_invalid_filter_is_reported_even_if_it_is_not_utf8() {
        let invalid = |value: &[u8]| filter(Some(OsStr::from_bytes(value))).1;
        assert_eq!(filter(None).1, None);
        assert_eq!(invalid(b"roadshow=debug,info"), None);
        assert!(invalid(b"roadshow=loud").is_some());
        assert_eq!(invalid(b"caf\xe9"), Some(("caf\u{fffd}".to_owned(), "it is not text".to_owned())));
    }
}
