//! Loop of `top`: terminal, signals and poller as events for the model, and its effects.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use crossterm::event::{Event as TerminalEvent, EventStream};
use futures_util::StreamExt;
use roadshow::admin::Admin;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::model::{Effect, Event, Model};
use super::poller::{Order, PollerChannels, Report, poll};
use super::sample::Wanted;
use super::terminal::{Screen, Signal, Signals, stop_this_process};
use super::view;
use super::view::Look;
use crate::cli::cluster_args::AdminConnector;
use crate::error::{CliError, CliResult};
use crate::output::time::now_ms;

/// Time between two pictures without an event, for ages and pauses on the screen.
const TICK: Duration = Duration::from_secs(1);

/// Orders that wait for the poller, which runs one request at a time.
const ORDERS_MAX: usize = 4;

/// Reports that wait for the screen. A screen that does not read stops the polling.
const REPORTS_MAX: usize = 2;

/// Shows the cluster until a key or a signal ends it.
pub(super) async fn run<D: AdminConnector>(
    model: Model,
    interval: Duration,
    connector: &D,
    client: Admin<D::Exchange>,
) -> CliResult<()> {
    let (want, wanted) = watch::channel(model.wanted());
    let (order, orders) = mpsc::channel(ORDERS_MAX);
    let (reports, reported) = mpsc::channel(REPORTS_MAX);
    let live = Live::open(model, want, order).map_err(|error| terminal_error(&error))?;
    let poller = poll(connector, client, interval, PollerChannels { wanted, orders, reports });
    tokio::select! {
        outcome = live.run(reported) => outcome,
        // It ends only after the screen has closed its channels.
        () = poller => Ok(()),
    }
}

fn terminal_error(error: &std::io::Error) -> CliError {
    CliError::failed(
        format!("cannot use the terminal: {error}"),
        "run it in a terminal, or print one page with --once",
    )
}

/// Input of one turn of the loop.
enum Step {
    Event(Event),
    Signal(Signal),
    /// The terminal is closed.
    Closed,
}

fn step_of(event: Option<std::io::Result<TerminalEvent>>) -> CliResult<Step> {
    match event {
        Some(Ok(TerminalEvent::Key(key))) => Ok(Step::Event(Event::Key(key))),
        // A new size needs another picture.
        Some(Ok(_)) => Ok(Step::Event(Event::Tick)),
        Some(Err(error)) => Err(terminal_error(&error)),
        None => Ok(Step::Closed),
    }
}

struct Live {
    model: Model,
    screen: Screen,
    look: Look,
    begun: Instant,
    want: watch::Sender<Wanted>,
    order: mpsc::Sender<Order>,
}

impl Live {
    fn open(model: Model, want: watch::Sender<Wanted>, order: mpsc::Sender<Order>) -> std::io::Result<Self> {
        let screen = Screen::open()?;
        Ok(Self { model, screen, look: Look::live(), begun: Instant::now(), want, order })
    }

    async fn run(mut self, mut reported: mpsc::Receiver<Report>) -> CliResult<()> {
        let mut signals = Signals::register().map_err(|error| terminal_error(&error))?;
        let mut keys = EventStream::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.draw()?;
            let mut step = tokio::select! {
                Some(report) = reported.recv() => Step::Event(Event::Report(report)),
                event = keys.next() => step_of(event)?,
                signal = signals.next() => Step::Signal(signal),
                _ = tick.tick() => Step::Event(Event::Tick),
            };
            // Keys that have arrived meanwhile share one picture: a paste has many. Polled with this task's waker:
            // the stream keeps the first waker that it is given, so `now_or_never` would lose the next key.
            loop {
                if self.take(step)? {
                    return Ok(());
                }
                match poll_fn(|task| Poll::Ready(keys.poll_next_unpin(task))).await {
                    Poll::Ready(event) => step = step_of(event)?,
                    Poll::Pending => break,
                }
            }
        }
    }

    /// Handles a step, and reports if it ends the loop.
    fn take(&mut self, step: Step) -> CliResult<bool> {
        match step {
            Step::Event(event) => match self.model.update(self.begun.elapsed(), now_ms(), event) {
                Some(effect) => self.apply(effect),
                None => Ok(false),
            },
            Step::Signal(Signal::Suspend) => self.suspend().map(|()| false),
            Step::Signal(Signal::Resumed) => self.resume().map(|()| false),
            Step::Signal(Signal::End) | Step::Closed => Ok(true),
        }
    }

    fn draw(&mut self) -> CliResult<()> {
        let (model, look) = (&self.model, self.look);
        let rows = self.screen.draw(|area, buffer| view::draw(model, look, area, buffer));
        self.model.page_rows = rows.map_err(|error| terminal_error(&error))?;
        Ok(())
    }

    /// Applies an effect, and reports if it ends the loop.
    fn apply(&mut self, effect: Effect) -> CliResult<bool> {
        match effect {
            Effect::Quit => return Ok(true),
            Effect::Suspend => self.suspend()?,
            Effect::Redraw => self.resume()?,
            Effect::Want(wanted) => drop(self.want.send_replace(wanted)),
            Effect::Refresh => self.order(Order::Refresh, ""),
            Effect::Act(action) => self.order(Order::Act(action), "asking the head"),
        }
        Ok(false)
    }

    fn order(&mut self, order: Order, meanwhile: &str) {
        match self.order.try_send(order) {
            Ok(()) if meanwhile.is_empty() => {}
            Ok(()) => self.model.say(meanwhile),
            // A head that does not answer: the requests before this one still wait.
            Err(_) => self.model.say("the head has not answered yet; try again"),
        }
    }

    /// Gives the terminal back and stops the process, as Ctrl-Z does in other programs.
    fn suspend(&mut self) -> CliResult<()> {
        self.screen.close();
        stop_this_process();
        // SIGCONT has continued the process.
        self.resume()
    }

    fn resume(&mut self) -> CliResult<()> {
        self.screen.reopen().map_err(|error| terminal_error(&error))
    }
}
