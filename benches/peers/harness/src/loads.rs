//! The loads: each warms up, runs for its time, and checks what came back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::measure::{Bench, Figure, Stop, callers};
use crate::{ACTORS, Client, Load};

/// Timeout of each call in the load with timeouts: longer than any call takes.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Time after which a load that does not end counts as failed.
const LOAD_LIMIT: Duration = Duration::from_secs(45);

/// Tasks that send payloads.
const PAYLOAD_CALLERS: usize = 8;

/// Tasks that send lists of words.
const WORD_CALLERS: usize = 4;

/// Lists that are made before the clock starts.
const WORD_LISTS: usize = 32;

/// Latencies that are kept at most, 4 bytes each.
const LATENCIES_MAX: usize = 4_000_000;

/// Runs all loads of a session, and prints a line for each.
pub(crate) async fn run<C: Client>(bench: &Bench, client: C) -> Result<()> {
    for load in &bench.loads {
        bench.reset_peaks();
        let limit = LOAD_LIMIT + bench.time * 2;
        let result = match tokio::time::timeout(limit, one(bench, &client, *load)).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("the load did not end within {limit:?}")),
        };
        bench.print(*load, result);
    }
    Ok(())
}

async fn one<C: Client>(bench: &Bench, client: &C, load: Load) -> Result<Figure> {
    match load {
        Load::RoundTrip => round_trip(bench, client).await,
        Load::Calls64 => calls(bench, client, 64).await,
        Load::Calls1024 => calls(bench, client, 1024).await,
        Load::Pairs8 => pairs(bench, client).await,
        Load::FanOut4 => fan_out(bench, client).await,
        Load::Timeout1024 => with_timeout(bench, client).await,
        Load::Retry1024 => with_retry(bench, client).await,
        Load::OneWay16 => one_way(bench, client, 16).await,
        Load::OneWay256 => one_way(bench, client, 256).await,
        Load::Reply1K => replies(bench, client, 1 << 10).await,
        Load::Echo1K | Load::Echo64K | Load::Echo1M => {
            echo(bench, client, load.bytes().unwrap_or_default()).await
        }
        Load::Plain1K | Load::Plain64K | Load::Plain1M => {
            echo_plain(bench, client, load.bytes().unwrap_or_default()).await
        }
        Load::Words => words(bench, client).await,
        Load::WordList => word_list(bench, client).await,
        Load::Spawns16 => spawns(bench, client).await,
    }
}

/// Warms a load up, and measures it.
async fn measured<F>(bench: &Bench, count: usize, caller: impl Fn(usize, Stop) -> F) -> Result<Figure>
where
    F: Future<Output = Result<u64>> + Send + 'static,
{
    callers(count, bench.warm_up(), &caller).await?;
    let clock = bench.start();
    let messages = callers(count, bench.time, &caller).await?;
    Ok(clock.stop(messages))
}

/// Counters of the actors before a load.
struct Counted {
    actors: Vec<usize>,
    before: u64,
}

impl Counted {
    async fn new<C: Client>(client: &C, actors: impl IntoIterator<Item = usize>) -> Result<Self> {
        let mut counted = Self { actors: actors.into_iter().collect(), before: 0 };
        counted.before = counted.sum(client).await?;
        Ok(counted)
    }

    async fn sum<C: Client>(&self, client: &C) -> Result<u64> {
        let mut sum = 0;
        for actor in &self.actors {
            sum += client.count(*actor).await?;
        }
        Ok(sum)
    }

    /// Compares what the actors handled with what the callers sent.
    async fn check<C: Client>(&self, client: &C, sent: u64) -> Result<()> {
        let handled = self.sum(client).await? - self.before;
        ensure!(handled == sent, "the actors handled {handled} messages of {sent}");
        Ok(())
    }
}

/// Single call in flight. The callers sum up both parts, so that the actor's count can be checked.
async fn round_trip<C: Client>(bench: &Bench, client: &C) -> Result<Figure> {
    let counted = Counted::new(client, [0]).await?;
    let (warm, _) = round_trips(client.clone(), bench.warm_up()).await?;
    let clock = bench.start();
    let (calls, mut latencies) = round_trips(client.clone(), bench.time).await?;
    let figure = clock.stop(calls);
    counted.check(client, warm + calls).await?;
    latencies.sort_unstable();
    Ok(Figure { latencies, ..figure })
}

async fn round_trips<C: Client>(client: C, time: Duration) -> Result<(u64, Vec<u32>)> {
    let caller = async move {
        let (mut calls, mut latencies) = (0, Vec::with_capacity(1 << 16));
        let end = Instant::now() + time;
        let mut begin = Instant::now();
        while begin < end {
            let reply = client.call(0, calls).await?;
            let now = Instant::now();
            ensure!(reply == calls + 1, "the reply to {calls} is {reply}");
            if latencies.len() < LATENCIES_MAX {
                latencies.push(u32::try_from((now - begin).as_nanos()).unwrap_or(u32::MAX));
            }
            calls += 1;
            begin = now;
        }
        Ok((calls, latencies))
    };
    tokio::spawn(caller).await?
}

/// A task with one call in flight.
async fn caller<F>(stop: Stop, call: impl Fn(u64) -> F) -> Result<u64>
where
    F: Future<Output = Result<u64>>,
{
    let mut calls = 0;
    while stop.goes_on() {
        let reply = call(calls).await?;
        ensure!(reply == calls + 1, "the reply to {calls} is {reply}");
        calls += 1;
    }
    Ok(calls)
}

/// Warms up and measures, and checks the actors' count of both parts.
async fn checked<C, F>(
    bench: &Bench,
    client: &C,
    actors: impl IntoIterator<Item = usize>,
    count: usize,
    caller: impl Fn(usize, Stop) -> F,
) -> Result<Figure>
where
    C: Client,
    F: Future<Output = Result<u64>> + Send + 'static,
{
    let counted = Counted::new(client, actors).await?;
    let warm = callers(count, bench.warm_up(), &caller).await?;
    let clock = bench.start();
    let messages = callers(count, bench.time, &caller).await?;
    let figure = clock.stop(messages);
    counted.check(client, warm + messages).await?;
    Ok(figure)
}

async fn calls<C: Client>(bench: &Bench, client: &C, count: usize) -> Result<Figure> {
    let run = |_, stop| {
        let client = client.clone();
        async move { caller(stop, |n| client.call(0, n)).await }
    };
    checked(bench, client, [0], count, run).await
}

async fn pairs<C: Client>(bench: &Bench, client: &C) -> Result<Figure> {
    let run = |actor, stop| {
        let client = client.clone();
        async move { caller(stop, |n| client.call(actor, n)).await }
    };
    checked(bench, client, 0..ACTORS, ACTORS, run).await
}

async fn with_timeout<C: Client>(bench: &Bench, client: &C) -> Result<Figure> {
    let run = |_, stop| {
        let client = client.clone();
        async move { caller(stop, |n| client.call_timeout(0, n, CALL_TIMEOUT)).await }
    };
    checked(bench, client, [0], 1024, run).await
}

async fn with_retry<C: Client>(bench: &Bench, client: &C) -> Result<Figure> {
    let run = |_, stop| {
        let client = client.clone();
        async move { caller(stop, |n| client.call_retry(0, n)).await }
    };
    checked(bench, client, [0], 1024, run).await
}

/// Each task calls the first actor of every server, and waits for all replies.
async fn fan_out<C: Client>(bench: &Bench, client: &C) -> Result<Figure> {
    let servers = Load::FanOut4.servers();
    let run = |_, stop: Stop| {
        let client = client.clone();
        async move {
            let mut calls = 0;
            while stop.goes_on() {
                let all = (0..servers).map(|server| client.call(server * ACTORS, calls));
                for reply in futures_util::future::join_all(all).await {
                    let reply = reply?;
                    ensure!(reply == calls + 1, "the reply to {calls} is {reply}");
                }
                calls += 1;
            }
            Ok(calls * servers as u64)
        }
    };
    checked(bench, client, (0..servers).map(|server| server * ACTORS), 16, run).await
}

/// Single sender. The clock stops when the actor has handled everything.
async fn one_way<C: Client>(bench: &Bench, client: &C, burst: u64) -> Result<Figure> {
    let counted = Counted::new(client, [0]).await?;
    let send = |_, stop: Stop| {
        let client = client.clone();
        async move {
            let mut sent = 0;
            while stop.goes_on() {
                for _ in 0..burst {
                    client.tell(0, sent).await?;
                    sent += 1;
                }
                tokio::task::yield_now().await;
            }
            Ok(sent)
        }
    };
    let warm = callers(1, bench.warm_up(), send).await?;
    handled(client, &counted, warm).await?;
    let clock = bench.start();
    let sent = callers(1, bench.time, send).await?;
    handled(client, &counted, warm + sent).await?;
    Ok(clock.stop(sent))
}

/// Waits for the actor's count. The load's limit ends a wait for lost messages.
async fn handled<C: Client>(client: &C, counted: &Counted, sent: u64) -> Result<()> {
    let want = counted.before + sent;
    loop {
        let count = counted.sum(client).await?;
        ensure!(count <= want, "the actor handled {count} messages of {want}");
        if count == want {
            return Ok(());
        }
        // Not all frameworks keep the order, so the question may be answered before the last message.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn replies<C: Client>(bench: &Bench, client: &C, size: u32) -> Result<Figure> {
    let run = |_, stop: Stop| {
        let client = client.clone();
        async move {
            let mut calls = 0;
            while stop.goes_on() {
                let reply = client.reply(size).await?;
                let bytes = reply.as_ref();
                ensure!(bytes.len() == size as usize, "{} bytes came of {size}", bytes.len());
                ensure!(bytes.last() == Some(&REPLY_BYTE), "other bytes came back");
                calls += 1;
            }
            Ok(calls)
        }
    };
    measured(bench, 64, run).await
}

/// Byte of which replies consist.
pub const REPLY_BYTE: u8 = 7;

fn body(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 % 251) as u8).collect()
}

async fn echo<C: Client>(bench: &Bench, client: &C, size: usize) -> Result<Figure> {
    let expected: Arc<Vec<u8>> = body(size).into();
    let run = |_, stop: Stop| {
        let (client, expected) = (client.clone(), expected.clone());
        async move {
            let (mut calls, mut body) = (0, C::Bytes::from(expected.to_vec()));
            while stop.goes_on() {
                body = client.echo(body).await?;
                calls += 1;
                ensure!(body.as_ref().len() == expected.len(), "{} bytes came back", body.as_ref().len());
            }
            ensure!(body.as_ref() == &expected[..], "other bytes came back");
            Ok(calls)
        }
    };
    measured(bench, PAYLOAD_CALLERS, run).await
}

async fn echo_plain<C: Client>(bench: &Bench, client: &C, size: usize) -> Result<Figure> {
    let expected: Arc<Vec<u8>> = body(size).into();
    let run = |_, stop: Stop| {
        let (client, expected) = (client.clone(), expected.clone());
        async move {
            let (mut calls, mut body) = (0, expected.to_vec());
            while stop.goes_on() {
                body = client.echo_plain(body).await?;
                calls += 1;
                ensure!(body.len() == expected.len(), "{} bytes came back", body.len());
            }
            ensure!(body == *expected, "other bytes came back");
            Ok(calls)
        }
    };
    measured(bench, PAYLOAD_CALLERS, run).await
}

async fn words<C: Client>(bench: &Bench, client: &C) -> Result<Figure> {
    let send = |client: C, words| async move { client.words(words).await };
    lists(bench, client, &bench.words, bench.words.len(), send).await
}

async fn word_list<C: Client>(bench: &Bench, client: &C) -> Result<Figure> {
    let list = C::make_word_list(&bench.words)?;
    let send = |client: C, list| async move { client.word_list(list).await };
    lists(bench, client, &list, bench.words.len(), send).await
}

/// Sends copies of a list. They are made while the clock stands still.
async fn lists<C, L, F>(
    bench: &Bench,
    client: &C,
    list: &L,
    count: usize,
    send: impl Fn(C, L) -> F + Copy + Send + 'static,
) -> Result<Figure>
where
    C: Client,
    L: Clone + Send + 'static,
    F: Future<Output = Result<u64>> + Send + 'static,
{
    let batch = || async {
        let lists: Arc<Mutex<Vec<L>>> = Arc::new(Mutex::new(vec![list.clone(); WORD_LISTS]));
        let clock = bench.start();
        let sender = |_, _| {
            let (client, lists) = (client.clone(), lists.clone());
            async move {
                let mut calls = 0;
                loop {
                    let next = lists.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some(list) = next else { return Ok(calls) };
                    let words = send(client.clone(), list).await?;
                    ensure!(words == count as u64, "the actor counted {words} words of {count}");
                    calls += 1;
                }
            }
        };
        let calls = callers(WORD_CALLERS, Duration::ZERO, sender).await?;
        Ok::<_, anyhow::Error>(clock.stop(calls))
    };
    // One batch is the warm-up.
    batch().await?;
    let (all, mut sum) = (bench.start(), Figure::default());
    // Lists are slow to make where they are fast to send, so that time has a limit of its own.
    while sum.seconds < bench.time.as_secs_f64() && all.elapsed() < bench.time * 3 {
        let figure = batch().await?;
        sum.messages += figure.messages;
        sum.seconds += figure.seconds;
        sum.cpu = sum.cpu.plus(figure.cpu);
    }
    Ok(sum)
}

async fn spawns<C: Client>(bench: &Bench, client: &C) -> Result<Figure> {
    let run = |_, stop: Stop| {
        let client = client.clone();
        async move {
            let mut spawned = 0;
            while stop.goes_on() {
                client.spawn().await?;
                spawned += 1;
            }
            Ok(spawned)
        }
    };
    measured(bench, 16, run).await
}
