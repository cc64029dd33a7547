//! Modes of the terminal, and the signals that concern it.
//!
//! The terminal is restored on every way out: [`Screen`] does it when it is dropped, and a panic hook before
//! the message of a panic.

use std::io::{self, Stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use rustix::process::{Signal as Number, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// True while the terminal is in raw mode.
///
/// Leaving the alternate screen a second time would move the cursor into the message of a panic.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Terminal in raw mode, on its alternate screen.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        restore_before_panics();
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        // Made first: its drop restores the terminal if a later step fails.
        let mut screen = Self { terminal };
        screen.reopen()?;
        Ok(screen)
    }

    /// Takes the terminal, also after another program has changed its modes.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        IS_TAKEN.store(true, Ordering::Relaxed);
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        self.terminal.hide_cursor()?;
        // Clears, and draws all cells again. `Terminal::clear` would ask the terminal for the position of its
        // cursor, and wait 2 s for one that does not answer.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::new(0, 0, size.width, size.height))
    }

    /// Gives the terminal back.
    pub(super) fn close(&self) {
        restore();
    }

    pub(super) fn draw<R>(&mut self, picture: impl FnOnce(Rect, &mut Buffer) -> R) -> io::Result<R> {
        let mut result = None;
        self.terminal.draw(|frame| result = Some(picture(frame.area(), frame.buffer_mut())))?;
        Ok(result.expect("draw calls the closure once"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if !IS_TAKEN.swap(false, Ordering::Relaxed) {
        return;
    }
    // A terminal that is gone needs no restoring, and there is no other place for the error.
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// Restores the terminal before the message of a panic, which would vanish with the alternate screen.
fn restore_before_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            print(panic);
        }));
    });
}

/// Stops this process until SIGCONT.
pub(super) fn stop_this_process() {
    // SIGSTOP and not SIGTSTP: `Signals` has replaced the default effect of SIGTSTP.
    let _ = kill_process(getpid(), Number::STOP);
}

/// Meaning of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    End,
    Suspend,
    Resumed,
}

/// Signals that end, suspend or continue the command.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    suspend: tokio::signal::unix::Signal,
    resume: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn register() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            suspend: signal(SignalKind::from_raw(Number::TSTP.as_raw()))?,
            resume: signal(SignalKind::from_raw(Number::CONT.as_raw()))?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::End,
            _ = self.terminate.recv() => Signal::End,
            _ = self.hangup.recv() => Signal::End,
            _ = self.suspend.recv() => Signal::Suspend,
            _ = self.resume.recv() => Signal::Resumed,
        }
    }
}
