//! Where the library's own events go.
//!
//! A driver's subscriber is the program's: nothing here installs one in it. Where it has none, the library's
//! events alone are printed, each through a subscriber that is the thread's for just that event ([`emit`]).
//! Workers and daemons have no other program in them, and get a subscriber of the whole process.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, OnceLock};

use tracing::dispatcher::{self, Dispatch};
use tracing::subscriber::NoSubscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;

/// The variable that says what is logged: a level (`debug`), or levels by target (`roadshow=debug,info`).
pub(crate) const VARIABLE: &str = "ROADSHOW_LOG";

/// Prints a driver's events while its program has no subscriber.
static FALLBACK: OnceLock<Dispatch> = OnceLock::new();

/// Has a daemon log to standard error what `ROADSHOW_LOG` asks for, warnings by default, unless a subscriber
/// was set before.
#[cfg(feature = "cli")]
pub(crate) fn init() {
    if !dispatcher::has_been_set() {
        install(stderr(true));
    }
}

/// Has a worker log to standard error what `ROADSHOW_LOG` asks for, as daemons do. Its lines are labelled
/// where they are shown.
pub(crate) fn init_labelled() {
    if !dispatcher::has_been_set() {
        install(stderr(false));
    }
}

/// As [`init`], to wherever `write` writes: it gets an event at a time.
#[cfg(feature = "cli")]
pub(crate) fn init_with(write: impl Fn(&[u8]) -> io::Result<()> + Send + Sync + 'static) {
    install(subscriber(false, true, write));
}

/// Has the library's events of a driver printed as those of a daemon are, as long as its program has no subscriber.
pub(crate) fn fall_back() {
    if dispatcher::has_been_set() || FALLBACK.get().is_some() {
        return;
    }
    let (fallback, unclear) = stderr(true);
    if FALLBACK.set(fallback).is_ok() {
        emit(|| complain(unclear.as_ref()));
    }
}

/// Emits an event of the library, to the subscriber that there is or else to what [`fall_back`] has set.
pub(crate) fn emit(event: impl FnOnce()) {
    match FALLBACK.get() {
        Some(fallback) if dispatcher::get_default(|current| current.is::<NoSubscriber>()) => {
            dispatcher::with_default(fallback, event);
        }
        _ => event(),
    }
}

/// As `tracing::debug!`, also in a driver that has no subscriber.
macro_rules! log_debug {
    ($($event:tt)*) => { $crate::observe::log::emit(|| ::tracing::debug!($($event)*)) };
}

/// As `tracing::info!`, also in a driver that has no subscriber.
macro_rules! log_info {
    ($($event:tt)*) => { $crate::observe::log::emit(|| ::tracing::info!($($event)*)) };
}

/// As `tracing::warn!`, also in a driver that has no subscriber.
macro_rules! log_warn {
    ($($event:tt)*) => { $crate::observe::log::emit(|| ::tracing::warn!($($event)*)) };
}

/// As `tracing::error!`, also in a driver that has no subscriber.
macro_rules! log_error {
    ($($event:tt)*) => { $crate::observe::log::emit(|| ::tracing::error!($($event)*)) };
}

pub(crate) use {log_debug as debug, log_error as error, log_info as info, log_warn as warn};

/// A value of the variable that is not understood, and why.
type Unclear = Option<(String, String)>;

fn stderr(is_numbered: bool) -> (Dispatch, Unclear) {
    subscriber(io::stderr().is_terminal(), is_numbered, |event| io::stderr().write_all(event))
}

fn subscriber(
    is_terminal: bool,
    is_numbered: bool,
    write: impl Fn(&[u8]) -> io::Result<()> + Send + Sync + 'static,
) -> (Dispatch, Unclear) {
    let write = Arc::new(write);
    let (filter, unclear) = filter(std::env::var_os(VARIABLE).as_deref());
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(move || Line { write: Arc::clone(&write), is_numbered })
        .with_ansi(is_terminal)
        .with_filter(filter);
    (Dispatch::new(tracing_subscriber::registry().with(layer)), unclear)
}

/// What is logged, as the variable's value asks.
fn filter(asked: Option<&OsStr>) -> (Targets, Unclear) {
    let Some(asked) = asked else { return (quiet(), None) };
    let parsed = match asked.to_str() {
        Some(text) => text.parse::<Targets>().map_err(|error| error.to_string()),
        None => Err("it is not text".to_owned()),
    };
    match parsed {
        Ok(filter) => (filter, None),
        Err(why) => (quiet(), Some((asked.to_string_lossy().into_owned(), why))),
    }
}

fn install((subscriber, unclear): (Dispatch, Unclear)) {
    // Another one counts where the program has set it.
    if dispatcher::set_global_default(subscriber).is_ok() {
        complain(unclear.as_ref());
    }
}

fn complain(unclear: Option<&(String, String)>) {
    if let Some((value, error)) = unclear {
        tracing::warn!(
            value,
            error,
            "{VARIABLE} is not understood; set it to `debug` or `roadshow=debug,info`"
        );
    }
}

/// Writes the process's number before each event where several share a standard error. An event comes as
/// one write.
struct Line<W> {
    write: Arc<W>,
    is_numbered: bool,
}

impl<W: Fn(&[u8]) -> io::Result<()>> Write for Line<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let number = if self.is_numbered { format!("[{}] ", std::process::id()) } else { String::new() };
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
    fn a_value_that_is_not_understood_is_complained_about_also_where_it_is_no_text() {
        let unclear = |value: &[u8]| filter(Some(OsStr::from_bytes(value))).1;
        assert_eq!(filter(None).1, None);
        assert_eq!(unclear(b"roadshow=debug,info"), None);
        assert!(unclear(b"roadshow=loud").is_some());
        assert_eq!(unclear(b"caf\xe9"), Some(("caf\u{fffd}".to_owned(), "it is not text".to_owned())));
    }
}
