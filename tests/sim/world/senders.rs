//! The senders: for each actor elsewhere one stream in order, and one sender that does as it likes; and
//! the tasks of each host.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use roadshow::{RemoteAddr, Retry, SendError, TaskError};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::cast::{Entry, Errand, Ledger, Letter, Note, chore};
use super::guests;
use super::place::{PROBED, Places};
use super::record::{Actor, End, Op, Record, Sent, Stream, Way, content};
use super::script::Script;

/// Actors of each host that senders send to.
const SENT_TO: usize = PROBED;

/// The answer of one operation.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Op, SendError>>>>;

/// Runs `$send` with a message of a type that the sender draws.
macro_rules! drawn {
    ($sender:expr, $op:expr, $message:ident => $send:expr) => {
        match $sender.rng.u8(..8) {
            0..=4 => {
                let $message = Note($op);
                $send
            }
            5 | 6 => {
                let $message = $sender.entry($op);
                $send
            }
            _ => {
                let $message = Letter::new($op, $sender.bytes());
                $send
            }
        }
    };
}

/// Starts the senders of one host, in its present life.
pub(crate) fn start(script: &Script, places: &Rc<Places>, from: usize, life: u64, tasks: &mut JoinSet<()>) {
    let sender = |to, part| Sender { places: Rc::clone(places), from, to, rng: script.rng(part) };
    for to in 0..script.hosts {
        let pair = (life * 10 + from as u64) * 10 + to as u64;
        for actor in (0..SENT_TO).filter(|_| to != from) {
            let stream = pair * 10 + actor as u64;
            tasks.spawn_local(sender(to, 1 + 2 * stream).in_order(stream, actor, script.messages));
            tasks.spawn_local(sender(to, 2 + 2 * stream).freely(actor, script.messages));
        }
        // Parts above those of the streams.
        let part = (1 << 32) + 10 * pair;
        if to != from {
            tasks.spawn_local(sender(to, part).chores(script.tasks));
        }
        for guest in 0..script.guests as u64 {
            let stream = part + 1 + guest;
            tasks.spawn_local(guests::keep(sender(to, stream), stream, script.hosts, script.messages));
        }
    }
}

/// Has each host call each other until it has an answer: the last refusals may be on their way still.
pub(crate) async fn greet(script: &Script, places: &Places) {
    for (from, to) in (0..script.hosts).flat_map(|from| (0..script.hosts).map(move |to| (from, to))) {
        let mut answered = from == to;
        while !answered {
            let op = places.record.send(Sent::new(Way::Send, from, to));
            let ledger = places.at(from).ledger_of(&places.at(to), 0);
            let answer = ledger.send(Entry { op, rest_ms: 0, content: content(op, 1) }).await;
            answered = answer.is_ok();
            places.record.answer(op, answer);
            sleep(Duration::from_millis(if answered { 10 } else { 200 })).await;
        }
    }
}

/// A call to an actor that takes nothing else, and its answer.
pub(crate) fn probe(places: &Places, from: usize, to: usize, limit: Option<Duration>) -> (Op, Answer) {
    let op = places.record.send(Sent::new(Way::Send, from, to).within(limit));
    (op, Box::pin(places.at(from).ledger_of(&places.at(to), PROBED).send(Note(op))))
}

/// What sends from one host to another.
pub(crate) struct Sender {
    pub(crate) places: Rc<Places>,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) rng: Rng,
}

impl Sender {
    async fn in_order(mut self, stream: u64, actor: usize, messages: usize) {
        let mut answers = JoinSet::new();
        for _ in 0..messages {
            self.rest(60).await;
            // The order is promised to an actor, and another life has other actors.
            let life = self.places.at(self.to).host.identity().incarnation.0;
            let to = self.ledger(actor);
            self.post(&to, (stream, life), Actor::Lives, &mut answers).await;
        }
        while answers.join_next().await.is_some() {}
    }

    /// Sends a message that is handled in its order, in one of three ways.
    pub(crate) async fn post(
        &mut self,
        to: &RemoteAddr<Ledger>,
        stream: Stream,
        actor: Actor,
        answers: &mut JoinSet<()>,
    ) {
        let way = [Way::Tell, Way::DoSend, Way::TrySend][self.rng.usize(..3)];
        let op = self.record().send(Sent::new(way, self.from, self.to).in_stream(stream, actor));
        match way {
            Way::Tell => {
                let told = drawn!(self, op, message => to.tell(message).await);
                self.record().end(op, told.map_or_else(|why| End::Failed(why.into()), |()| End::Sent));
            }
            Way::DoSend => {
                let here = self.places.at(self.from);
                let before = here.dead_letters();
                drawn!(self, op, message => to.do_send(message));
                let is_lost = here.dead_letters() > before;
                self.record().end(op, if is_lost { End::DeadLetter } else { End::Sent });
            }
            _ => {
                let sent: Result<Answer, _> = drawn!(self, op, message => match to.try_send(message) {
                    Ok(request) => Ok(Box::pin(request)),
                    Err(error) => Err(error.reason),
                });
                match sent {
                    Ok(request) => self.wait(op, request, answers),
                    Err(reason) => self.record().end(op, End::Failed(reason.into())),
                }
            }
        }
    }

    async fn freely(mut self, actor: usize, messages: usize) {
        let mut answers = JoinSet::new();
        for _ in 0..messages {
            self.rest(60).await;
            let to = self.ledger(actor);
            let way = if self.rng.bool() { Way::Send } else { Way::Retry };
            let limit = self.limit();
            let op = self.record().send(Sent::new(way, self.from, self.to).within(limit));
            let answer = self.ask(&to, way, limit, op);
            self.wait(op, answer, &mut answers);
        }
        while answers.join_next().await.is_some() {}
    }

    fn ask(&mut self, to: &RemoteAddr<Ledger>, way: Way, limit: Option<Duration>, op: Op) -> Answer {
        let policy = (way == Way::Retry).then(|| Retry::times(6).delay(Duration::from_millis(20)));
        macro_rules! ask {
            ($message:expr) => {{
                let mut request = to.send($message);
                if let Some(limit) = limit {
                    request = request.timeout(limit);
                }
                if let Some(policy) = policy {
                    request = request.retry(policy);
                }
                Box::pin(request)
            }};
        }
        if self.rng.bool() {
            drawn!(self, op, message => ask!(message))
        } else {
            let (takes_ms, bytes) = (self.rng.u64(0..300), self.bytes());
            ask!(Errand { op, takes_ms, content: content(op, bytes) })
        }
    }

    async fn chores(mut self, tasks: usize) {
        let mut answers = JoinSet::new();
        for _ in 0..tasks {
            self.rest(120).await;
            let limit = self.limit();
            let op = self.record().send(Sent::new(Way::Task, self.from, self.to).within(limit));
            let (here, there) = (self.places.at(self.from), self.places.at(self.to).host.identity());
            let mut request = here.cluster.run(chore::task(op, content(op, self.bytes())));
            if let Some(limit) = limit {
                request = request.timeout(limit);
            }
            let answer = async move {
                here.chosen.choose(there);
                request.await.map_err(of_task)
            };
            self.wait(op, Box::pin(answer), &mut answers);
        }
        while answers.join_next().await.is_some() {}
    }

    /// Waits for an answer beside the sender, which sometimes loses its patience.
    fn wait(&mut self, op: Op, answer: Answer, answers: &mut JoinSet<()>) {
        let (places, patience) = (Rc::clone(&self.places), self.patience());
        answers.spawn_local(await_answer(places, op, answer, patience));
    }

    fn entry(&mut self, op: Op) -> Entry {
        Entry { op, rest_ms: self.rng.u64(0..40), content: content(op, self.bytes()) }
    }

    /// Most are small; some go by handle, and some in chunks.
    pub(crate) fn bytes(&mut self) -> usize {
        match self.rng.u8(..10) {
            0 => self.rng.usize(70_000..300_000),
            1 => self.rng.usize(16_000..60_000),
            _ => self.rng.usize(0..300),
        }
    }

    /// The time limit of an operation, if it has one.
    pub(crate) fn limit(&mut self) -> Option<Duration> {
        (self.rng.u8(..4) == 0).then(|| Duration::from_millis(self.rng.u64(1..800)))
    }

    /// After what time the caller drops its call, if it does.
    fn patience(&mut self) -> Option<Duration> {
        (self.rng.u8(..4) == 0).then(|| Duration::from_millis(self.rng.u64(0..200)))
    }

    pub(crate) async fn rest(&mut self, ms_max: u64) {
        let ms = self.rng.u64(0..ms_max);
        if ms > ms_max / 3 {
            sleep(Duration::from_millis(ms)).await;
        }
    }

    fn ledger(&self, actor: usize) -> RemoteAddr<Ledger> {
        self.places.at(self.from).ledger_of(&self.places.at(self.to), actor)
    }

    pub(crate) fn record(&self) -> &Record {
        &self.places.record
    }
}

/// What an error of a task says about its message.
fn of_task(error: TaskError) -> SendError {
    match error {
        TaskError::NotDelivered { reason, .. } => reason.into(),
        TaskError::OutcomeUnknown { reason, .. } => reason.into(),
        other => SendError::Panicked { text: other.to_string() },
    }
}

async fn await_answer(places: Rc<Places>, op: Op, answer: Answer, patience: Option<Duration>) {
    let end = match patience {
        None => answer.await,
        Some(patience) => match tokio::time::timeout(patience, answer).await {
            Ok(end) => end,
            Err(_) => return places.record.end(op, End::Dropped),
        },
    };
    places.record.answer(op, end);
}
