//! Senders: for each remote actor one ordered stream and one unordered sender, and the tasks of each host.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use roadshow::{RemoteAddr, Retry, SendError, TaskError};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::actors::{Entry, Errand, Ledger, Letter, Note, chore};
use super::hosts::{PROBED, SimHosts};
use super::record::{Actor, End, Op, Record, SendKind, Sent, Stream, content};
use super::script::Script;
use super::spawned_actors;

/// Number of actors of each host that senders send to.
const SENT_TO: usize = PROBED;

/// Future of the answer of one operation.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Op, SendError>>>>;

/// Runs `$send` with a message of a random type.
macro_rules! with_random_message {
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

/// Starts the senders of one host in its current incarnation.
pub(crate) fn start(
    script: &Script,
    hosts: &Rc<SimHosts>,
    from: usize,
    incarnation: u64,
    tasks: &mut JoinSet<()>,
) {
    let sender = |to, part| Sender { hosts: Rc::clone(hosts), from, to, rng: script.rng(part) };
    for to in 0..script.hosts {
        // One decimal digit for each index: there are at most four hosts.
        let pair = (incarnation * 10 + from as u64) * 10 + to as u64;
        for actor in (0..SENT_TO).filter(|_| to != from) {
            let stream = pair * 10 + actor as u64;
            tasks.spawn_local(sender(to, 1 + 2 * stream).in_order(stream, actor, script.messages));
            tasks.spawn_local(sender(to, 2 + 2 * stream).unordered(actor, script.messages));
        }
        // Generator numbers above those of the streams.
        let part = (1 << 32) + 10 * pair;
        if to != from {
            tasks.spawn_local(sender(to, part).chores(script.tasks));
        }
        for guest in 0..script.guests as u64 {
            let stream = part + 1 + guest;
            tasks.spawn_local(spawned_actors::run(sender(to, stream), stream, script.hosts, script.messages));
        }
    }
}

/// Lets each host call each other until it is answered: the last refusals may still be in flight.
pub(crate) async fn greet(script: &Script, hosts: &SimHosts) {
    for (from, to) in (0..script.hosts).flat_map(|from| (0..script.hosts).map(move |to| (from, to))) {
        let mut answered = from == to;
        while !answered {
            let op = hosts.record.send(Sent::new(SendKind::Send, from, to));
            let ledger = hosts.at(from).ledger_of(&hosts.at(to), 0);
            let answer = ledger.send(Entry { op, pause_ms: 0, content: content(op, 1) }).await;
            answered = answer.is_ok();
            hosts.record.answer(op, answer);
            sleep(Duration::from_millis(if answered { 10 } else { 200 })).await;
        }
    }
}

/// Calls an actor that receives nothing else; returns its answer.
pub(crate) fn probe(hosts: &SimHosts, from: usize, to: usize, limit: Option<Duration>) -> (Op, Answer) {
    let op = hosts.record.send(Sent::new(SendKind::Send, from, to).within(limit));
    (op, Box::pin(hosts.at(from).ledger_of(&hosts.at(to), PROBED).send(Note(op))))
}

/// Sender from one host to another.
pub(crate) struct Sender {
    pub(crate) hosts: Rc<SimHosts>,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) rng: Rng,
}

impl Sender {
    async fn in_order(mut self, stream: u64, actor: usize, messages: usize) {
        let mut answers = JoinSet::new();
        for _ in 0..messages {
            self.pause(60).await;
            // The order is guaranteed for one actor, and another incarnation has other actors.
            let incarnation = self.hosts.at(self.to).host.identity().incarnation.0;
            let to = self.ledger(actor);
            self.post(&to, (stream, incarnation), Actor::Alive, &mut answers).await;
        }
        while answers.join_next().await.is_some() {}
    }

    /// Sends a message of an ordered stream, by one of three kinds of send.
    pub(crate) async fn post(
        &mut self,
        to: &RemoteAddr<Ledger>,
        stream: Stream,
        actor: Actor,
        answers: &mut JoinSet<()>,
    ) {
        let kind = [SendKind::Tell, SendKind::DoSend, SendKind::TrySend][self.rng.usize(..3)];
        let op = self.record().send(Sent::new(kind, self.from, self.to).in_stream(stream, actor));
        match kind {
            SendKind::Tell => {
                let sent = with_random_message!(self, op, message => to.tell(message).await);
                self.record().end(op, sent.map_or_else(|reason| End::Failed(reason.into()), |()| End::Sent));
            }
            SendKind::DoSend => {
                let here = self.hosts.at(self.from);
                // `do_send` returns nothing, so only the counter shows a drop. No await lies between.
                let before = here.dead_letters();
                with_random_message!(self, op, message => to.do_send(message));
                let is_lost = here.dead_letters() > before;
                self.record().end(op, if is_lost { End::DeadLetter } else { End::Sent });
            }
            _ => {
                let sent: Result<Answer, _> = with_random_message!(self, op, message => match to.try_send(message) {
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

    async fn unordered(mut self, actor: usize, messages: usize) {
        let mut answers = JoinSet::new();
        for _ in 0..messages {
            self.pause(60).await;
            let to = self.ledger(actor);
            let kind = if self.rng.bool() { SendKind::Send } else { SendKind::Retry };
            let limit = self.limit();
            let op = self.record().send(Sent::new(kind, self.from, self.to).within(limit));
            let answer = self.ask(&to, kind, limit, op);
            self.wait(op, answer, &mut answers);
        }
        while answers.join_next().await.is_some() {}
    }

    fn ask(&mut self, to: &RemoteAddr<Ledger>, kind: SendKind, limit: Option<Duration>, op: Op) -> Answer {
        let policy = (kind == SendKind::Retry).then(|| Retry::times(6).delay(Duration::from_millis(20)));
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
            with_random_message!(self, op, message => ask!(message))
        } else {
            let (takes_ms, bytes) = (self.rng.u64(0..300), self.bytes());
            ask!(Errand { op, takes_ms, content: content(op, bytes) })
        }
    }

    async fn chores(mut self, tasks: usize) {
        let mut answers = JoinSet::new();
        for _ in 0..tasks {
            self.pause(120).await;
            let (limit, retries) = (self.limit(), self.rng.u32(0..3));
            let sent = Sent::new(SendKind::Task, self.from, self.to).within(limit).with_retries(retries);
            let op = self.record().send(sent);
            let (here, there) = (self.hosts.at(self.from), self.hosts.at(self.to).host.identity());
            let mut request = here.cluster.run(chore::task(op, content(op, self.bytes()))).retries(retries);
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

    /// Awaits an answer in its own task, which sometimes drops the call early.
    fn wait(&mut self, op: Op, answer: Answer, answers: &mut JoinSet<()>) {
        let (hosts, drop_after) = (Rc::clone(&self.hosts), self.drop_after());
        answers.spawn_local(await_answer(hosts, op, answer, drop_after));
    }

    fn entry(&mut self, op: Op) -> Entry {
        Entry { op, pause_ms: self.rng.u64(0..40), content: content(op, self.bytes()) }
    }

    /// Draws a length: most are small, some are passed by handle, and some are sent in chunks.
    pub(crate) fn bytes(&mut self) -> usize {
        match self.rng.u8(..10) {
            0 => self.rng.usize(70_000..300_000),
            1 => self.rng.usize(16_000..60_000),
            _ => self.rng.usize(0..300),
        }
    }

    /// Draws the timeout of an operation, if it has one.
    pub(crate) fn limit(&mut self) -> Option<Duration> {
        (self.rng.u8(..4) == 0).then(|| Duration::from_millis(self.rng.u64(1..800)))
    }

    /// Draws the time after which the caller drops its call, if it does.
    fn drop_after(&mut self) -> Option<Duration> {
        (self.rng.u8(..4) == 0).then(|| Duration::from_millis(self.rng.u64(0..200)))
    }

    pub(crate) async fn pause(&mut self, ms_max: u64) {
        let ms = self.rng.u64(0..ms_max);
        // Sometimes no pause at all, so that messages also come in bursts.
        if ms > ms_max / 3 {
            sleep(Duration::from_millis(ms)).await;
        }
    }

    fn ledger(&self, actor: usize) -> RemoteAddr<Ledger> {
        self.hosts.at(self.from).ledger_of(&self.hosts.at(self.to), actor)
    }

    pub(crate) fn record(&self) -> &Record {
        &self.hosts.record
    }
}

/// Converts the error of a task to that of its request.
fn of_task(error: TaskError) -> SendError {
    match error {
        TaskError::NotDelivered { reason, .. } => reason.into(),
        TaskError::OutcomeUnknown { reason, .. } | TaskError::WorkersLost { reason, .. } => reason.into(),
        other => SendError::Panicked { text: other.to_string() },
    }
}

async fn await_answer(hosts: Rc<SimHosts>, op: Op, answer: Answer, drop_after: Option<Duration>) {
    let end = match drop_after {
        None => answer.await,
        Some(drop_after) => match tokio::time::timeout(drop_after, answer).await {
            Ok(end) => end,
            Err(_) => return hosts.record.end(op, End::Dropped),
        },
    };
    hosts.record.answer(op, end);
}
