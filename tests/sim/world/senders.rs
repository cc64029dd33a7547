//! Who sends: for each actor elsewhere one stream in order, and one sender who does as it likes.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use roadshow::{RemoteAddr, Retry, SendError};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::cast::{Entry, Errand, Ledger};
use super::place::{ACTORS, Places};
use super::record::{End, Op, Record, Way, content};
use super::script::Script;

type Answer = Pin<Box<dyn Future<Output = Result<Op, SendError>>>>;

/// Starts the senders of one host, in its present life.
pub(crate) fn start(script: &Script, places: &Rc<Places>, from: usize, life: u64, tasks: &mut JoinSet<()>) {
    for (to, actor) in (0..script.hosts).flat_map(|to| (0..ACTORS).map(move |actor| (to, actor))) {
        if to == from {
            continue;
        }
        let stream = ((life * 10 + from as u64) * 10 + to as u64) * 10 + actor as u64;
        let sender = |salt| Sender {
            places: Rc::clone(places),
            from,
            to,
            actor,
            stream,
            rng: script.rng(1 + 2 * stream + salt),
        };
        tasks.spawn_local(sender(0).in_order(script.messages));
        tasks.spawn_local(sender(1).freely(script.messages));
    }
}

/// Has each host call each other until it has an answer: the last refusals may be on their way still.
pub(crate) async fn greet(script: &Script, places: &Places) {
    for (from, to) in (0..script.hosts).flat_map(|from| (0..script.hosts).map(move |to| (from, to))) {
        let mut answered = from == to;
        while !answered {
            let op = places.record.send(Way::Send, from, to, None);
            let ledger = places.at(from).ledger_of(&places.at(to), 0);
            let answer = ledger.send(Entry { op, rest_ms: 0, content: content(op, 1) }).await;
            answered = answer.is_ok();
            places.record.end(op, answer.map_or_else(End::Failed, End::Answered));
            sleep(Duration::from_millis(10)).await;
        }
    }
}

struct Sender {
    places: Rc<Places>,
    from: usize,
    to: usize,
    actor: usize,
    stream: u64,
    rng: Rng,
}

impl Sender {
    async fn in_order(mut self, messages: usize) {
        let mut answers = JoinSet::new();
        for _ in 0..messages {
            self.rest(60).await;
            let to = self.ledger();
            let way = [Way::Tell, Way::DoSend, Way::TrySend][self.rng.usize(..3)];
            // The order is promised to an actor, and another life has other actors.
            let life = self.places.at(self.to).host.identity().incarnation.0;
            let op = self.record().send(way, self.from, self.to, Some((self.stream, life)));
            let entry = self.entry(op);
            match way {
                Way::Tell => {
                    let told = to.tell(entry).await;
                    self.record().end(op, told.map_or_else(|why| End::Failed(why.into()), |()| End::Sent));
                }
                Way::DoSend => {
                    to.do_send(entry);
                    self.record().end(op, End::Sent);
                }
                _ => match to.try_send(entry) {
                    Ok(request) => {
                        let (places, patience) = (Rc::clone(&self.places), self.patience());
                        answers.spawn_local(await_answer(places, op, Box::pin(request), patience));
                    }
                    Err(error) => self.record().end(op, End::Failed(error.reason.into())),
                },
            }
        }
        while answers.join_next().await.is_some() {}
    }

    async fn freely(mut self, messages: usize) {
        let mut answers = JoinSet::new();
        for _ in 0..messages {
            self.rest(60).await;
            let to = self.ledger();
            let way = if self.rng.bool() { Way::Send } else { Way::Retry };
            let op = self.record().send(way, self.from, self.to, None);
            let answer = self.ask(&to, way, op);
            let (places, patience) = (Rc::clone(&self.places), self.patience());
            answers.spawn_local(await_answer(places, op, answer, patience));
        }
        while answers.join_next().await.is_some() {}
    }

    fn ask(&mut self, to: &RemoteAddr<Ledger>, way: Way, op: Op) -> Answer {
        let timeout = (self.rng.u8(..4) == 0).then(|| Duration::from_millis(self.rng.u64(1..800)));
        let policy = (way == Way::Retry).then(|| Retry::times(6).delay(Duration::from_millis(20)));
        macro_rules! ask {
            ($message:expr) => {{
                let mut request = to.send($message);
                if let Some(timeout) = timeout {
                    request = request.timeout(timeout);
                }
                if let Some(policy) = policy {
                    request = request.retry(policy);
                }
                Box::pin(request)
            }};
        }
        if self.rng.bool() {
            ask!(self.entry(op))
        } else {
            let (takes_ms, bytes) = (self.rng.u64(0..300), self.bytes());
            ask!(Errand { op, takes_ms, content: content(op, bytes) })
        }
    }

    fn entry(&mut self, op: Op) -> Entry {
        Entry { op, rest_ms: self.rng.u64(0..40), content: content(op, self.bytes()) }
    }

    /// Most are small; some go by handle, and some in chunks.
    fn bytes(&mut self) -> usize {
        match self.rng.u8(..20) {
            0 => self.rng.usize(70_000..300_000),
            1 => self.rng.usize(16_000..60_000),
            _ => self.rng.usize(0..300),
        }
    }

    /// After what time the caller drops its call, if it does.
    fn patience(&mut self) -> Option<Duration> {
        (self.rng.u8(..4) == 0).then(|| Duration::from_millis(self.rng.u64(0..200)))
    }

    async fn rest(&mut self, ms_max: u64) {
        let ms = self.rng.u64(0..ms_max);
        if ms > ms_max / 3 {
            sleep(Duration::from_millis(ms)).await;
        }
    }

    fn ledger(&self) -> RemoteAddr<Ledger> {
        self.places.at(self.from).ledger_of(&self.places.at(self.to), self.actor)
    }

    fn record(&self) -> &Record {
        &self.places.record
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
    places.record.end(op, end.map_or_else(End::Failed, End::Answered));
}
