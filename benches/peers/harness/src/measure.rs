//! Clocks of a load, its callers, and the line that it prints.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::proc::{self, CpuTime};
use crate::{Args, Client, Load, Unsupported};

/// Part of a load's time for which it runs before it is measured.
const WARM_UP: f64 = 0.2;

/// Session of a client: what it measures, and for how long.
pub(crate) struct Bench {
    pub(crate) time: Duration,
    pub(crate) loads: Vec<Load>,
    pub(crate) words: Vec<String>,
    servers: Vec<u32>,
}

/// Result of a load.
#[derive(Default)]
pub(crate) struct Figure {
    pub(crate) messages: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu: CpuTime,
    /// Latencies in nanoseconds, sorted; empty where they are not measured.
    pub(crate) latencies: Vec<u32>,
}

/// Clock of a load under way.
pub(crate) struct Clock<'a> {
    servers: &'a [u32],
    begin: Instant,
    cpu: CpuTime,
}

impl Clock<'_> {
    /// Stops the clock.
    pub(crate) fn stop(self, messages: u64) -> Figure {
        let seconds = self.begin.elapsed().as_secs_f64();
        Figure { messages, seconds, cpu: CpuTime::now(self.servers).since(self.cpu), latencies: Vec::new() }
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }
}

impl Bench {
    /// Prints the session's line: processes, and their memory before any load.
    pub(crate) fn new<C: Client>(args: Args, client: &C) -> Result<Self> {
        let mut servers = args.pids;
        servers.extend(client.servers());
        let words = crate::words::list(args.words.as_deref())?;
        let bench = Self { time: args.time, loads: args.loads, words, servers };
        let mut line = bench.memory();
        line.insert("words".into(), json!(bench.words.len()));
        print_line(line);
        Ok(bench)
    }

    /// Time of the warm-up.
    pub(crate) fn warm_up(&self) -> Duration {
        self.time.mul_f64(WARM_UP)
    }

    /// Starts the clock of a load.
    pub(crate) fn start(&self) -> Clock<'_> {
        Clock { servers: &self.servers, cpu: CpuTime::now(&self.servers), begin: Instant::now() }
    }

    /// Starts the peaks of memory again.
    pub(crate) fn reset_peaks(&self) {
        proc::reset_peak(std::process::id());
        self.servers.iter().for_each(|pid| proc::reset_peak(*pid));
    }

    fn memory(&self) -> Map<String, Value> {
        // The sum of no numbers would be -0.
        let servers = self.servers.iter().fold(0.0, |sum, pid| sum + proc::peak_mib(*pid));
        let mut line = Map::new();
        line.insert("client_mib".into(), json!(proc::peak_mib(std::process::id())));
        line.insert("server_mib".into(), json!(servers));
        line
    }

    /// Prints the line of a load.
    pub(crate) fn print(&self, load: Load, result: Result<Figure>) {
        let mut line = match result {
            Ok(figure) => self.figure(load, &figure),
            Err(error) if error.is::<Unsupported>() => Map::from_iter([("unsupported".into(), json!(true))]),
            Err(error) => Map::from_iter([("error".into(), json!(format!("{error:#}")))]),
        };
        line.insert("load".into(), json!(load.name()));
        print_line(line);
    }

    fn figure(&self, load: Load, figure: &Figure) -> Map<String, Value> {
        let per_million = |seconds: f64| seconds / figure.messages.max(1) as f64 * 1e6;
        let rate = figure.messages as f64 / figure.seconds;
        let mut line = self.memory();
        let mut add = |key: &str, value: f64| drop(line.insert(key.into(), json!(value)));
        add("rate", rate);
        if let Some(bytes) = load.bytes() {
            add("mb_per_s", rate * bytes as f64 / 1e6);
        }
        if !figure.latencies.is_empty() {
            add("p50_us", quantile(&figure.latencies, 0.5));
            add("p99_us", quantile(&figure.latencies, 0.99));
        }
        add("client_cpu", per_million(figure.cpu.client));
        add("server_cpu", per_million(figure.cpu.servers));
        add("other_cores", figure.cpu.others / figure.seconds);
        line
    }
}

fn print_line(line: Map<String, Value>) {
    println!("{}", Value::Object(line));
}

/// Value in microseconds below which a part of the sorted nanoseconds lies.
fn quantile(sorted: &[u32], part: f64) -> f64 {
    let at = (sorted.len() as f64 * part) as usize;
    f64::from(sorted[at.min(sorted.len() - 1)]) / 1e3
}

/// Runs tasks until the time is over, and adds up what they return.
///
/// The tasks read a flag and no clock: at a few hundred nanoseconds a message, a clock is part of the figure.
pub(crate) async fn callers<F>(count: usize, time: Duration, caller: impl Fn(usize, Stop) -> F) -> Result<u64>
where
    F: Future<Output = Result<u64>> + Send + 'static,
{
    let stop = Stop::default();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..count {
        tasks.spawn(caller(number, stop.clone()));
    }
    tokio::time::sleep(time).await;
    stop.0.store(true, Relaxed);
    let mut sum = 0;
    while let Some(task) = tasks.join_next().await {
        sum += task??;
    }
    Ok(sum)
}

/// End of a load's time.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Returns true while the load goes on.
    #[inline]
    pub(crate) fn goes_on(&self) -> bool {
        !self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_of_the_list() {
        let sorted: Vec<u32> = (1..=100).map(|us| us * 1000).collect();
        assert_eq!((quantile(&sorted, 0.5), quantile(&sorted, 0.99)), (51.0, 100.0));
        assert_eq!(quantile(&[7000], 0.99), 7.0);
    }

    #[tokio::test]
    async fn callers_end_with_the_time_and_an_error_is_kept() {
        let ends = callers(3, Duration::from_millis(1), |_, stop| async move {
            while stop.goes_on() {
                tokio::task::yield_now().await;
            }
            Ok(2)
        });
        assert_eq!(ends.await.unwrap(), 6);
        let fails = callers(1, Duration::ZERO, |_, _| async { anyhow::bail!("a wrong count") });
        assert_eq!(fails.await.unwrap_err().to_string(), "a wrong count");
    }
}
