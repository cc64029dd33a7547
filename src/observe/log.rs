//! Where the library's own events go.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The variable that says what is logged: a level (`debug`), or levels by target (`roadshow=debug,info`).
const VARIABLE: &str = "ROADSHOW_LOG";

/// Logs to standard error what `ROADSHOW_LOG` asks for, warnings by default; does nothing in a
/// program that has a subscriber of its own.
pub(crate) fn init() {
    init_with(io::stderr().is_terminal(), |event| io::stderr().write_all(event));
}

/// The same, to wherever `write` writes: it gets an event at a time.
pub(crate) fn init_with(is_terminal: bool, write: impl Fn(&[u8]) -> io::Result<()> + Send + Sync + 'static) {
    let write = Arc::new(write);
    let asked = std::env::var(VARIABLE).ok();
    let parsed = asked.as_deref().map(str::parse::<Targets>);
    let (filter, unclear) = match parsed {
        None => (quiet(), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (quiet(), Some(error)),
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(move || Line(Arc::clone(&write)))
        .with_ansi(is_terminal)
        .with_filter(filter);
    let installed = tracing_subscriber::registry().with(layer).try_init();
    if let (Ok(()), Some(error)) = (installed, unclear) {
        tracing::warn!(value = asked, %error, "{VARIABLE} is not understood; set it to `debug` or `roadshow=debug,info`");
    }
}

/// Writes the process's number before each event: a driver and its workers share the standard error. An
/// event comes as one write.
struct Line<W>(Arc<W>);

impl<W: Fn(&[u8]) -> io::Result<()>> Write for Line<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let mut line = format!("[{}] ", std::process::id()).into_bytes();
        line.extend_from_slice(event);
        (self.0)(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn quiet() -> Targets {
    Targets::new().with_default(LevelFilter::WARN)
}
