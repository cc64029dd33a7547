//! Measurement of what a watched cluster costs: `tests/browser/run stream-load`.
//!
//! A driver makes 100,000 calls a second to an actor on the one node of a cluster. The processor time of driver and
//! worker for each call is measured without and with 50 clients of the dashboard's event stream, in pairs, and then
//! with a browser besides. The measurement also prints what the dashboard costs the head. It judges nothing, since
//! machines are noisy: the reader does.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;

use crate::browser::Browser;
use crate::cluster::{Cluster, POLL, WAIT};
use crate::cpu::{CpuTime, busy, resident_mib};
use crate::speed::first_paints;

/// Options of the measurement, each as `--name NUMBER`.
#[derive(Debug)]
struct Options {
    pairs: usize,
    browser_pairs: usize,
    seconds: u64,
    clients: usize,
    idle_seconds: u64,
    starts: usize,
}

impl Options {
    fn parse(arguments: &[String]) -> Self {
        let mut options =
            Self { pairs: 9, browser_pairs: 3, seconds: 5, clients: 50, idle_seconds: 20, starts: 5 };
        for option in arguments.chunks(2) {
            let [name, number] = option else { panic!("{option:?} has no number") };
            let number: u64 = number.parse().unwrap_or_else(|_| panic!("{name} has no number"));
            let count = usize::try_from(number).unwrap();
            match name.as_str() {
                "--pairs" => options.pairs = count,
                "--browser-pairs" => options.browser_pairs = count,
                "--seconds" => options.seconds = number,
                "--clients" => options.clients = count,
                "--idle-seconds" => options.idle_seconds = number,
                "--starts" => options.starts = count,
                _ => panic!(
                    "{name}: there are --pairs, --browser-pairs, --seconds, --clients, --idle-seconds, --starts"
                ),
            }
        }
        options
    }
}

/// Runs the measurement.
pub(crate) async fn run(arguments: &[String]) {
    let options = Options::parse(arguments);
    println!("{options:?}");
    starts(&options).await;
    let cluster = Cluster::of_one_node(0, true).await;
    let browser = Browser::start().await;
    pages(&cluster, &browser, &options).await;
    calls(&cluster, &browser, &options).await;
    browser.close().await;
}

/// Measures the start of a head without and with a dashboard, and its memory.
async fn starts(options: &Options) {
    for has_dashboard in [false, true].into_iter().filter(|_| options.starts > 0) {
        let (mut started, mut answered, mut resident) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.starts {
            let begun = Instant::now();
            let cluster = Cluster::of_one_node(1, has_dashboard).await;
            started.push(begun.elapsed().as_secs_f64() * 1e3);
            if has_dashboard {
                while !get(&cluster, "/api/version").await.starts_with("HTTP/1.1 200") {
                    assert!(begun.elapsed() < WAIT, "the dashboard does not answer");
                }
                answered.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            resident.push(resident_mib(cluster.head_pid()));
            cluster.stop(1).await;
        }
        let name = if has_dashboard { "with a dashboard" } else { "without a dashboard" };
        println!(
            "head {name}: ready after {:.0} ms, {:.1} MiB resident",
            median(&started),
            median(&resident)
        );
        if has_dashboard {
            println!("  the dashboard has answered after {:.0} ms", median(&answered));
        }
    }
}

/// Measures the head of an idle cluster without and with one page, and the first paint.
async fn pages(cluster: &Cluster, browser: &Browser, options: &Options) {
    let (head, time) = (cluster.head_pid(), Duration::from_secs(options.idle_seconds));
    println!("idle head: {:.2} % of a CPU", 100.0 * busy(head, time).await);
    browser.goto(&cluster.link).await;
    let paints = first_paints(browser, &cluster.url).await;
    println!("first contentful paint: median {:.0} ms, {paints:.0?}", paints[paints.len() / 2]);
    for (hash, heading) in [("#/", "Overview"), ("#/cluster", "Cluster")] {
        browser.open(hash, heading).await;
        browser.until("document.querySelector('.connection').textContent === 'Live'").await;
        let share = busy(head, time).await;
        println!(
            "idle head with one page, {heading}: {:.2} % of a CPU, {:.1} MiB resident",
            100.0 * share,
            resident_mib(head)
        );
    }
    browser.goto("about:blank").await;
}

/// Measures calls without and with viewers, in pairs.
async fn calls(cluster: &Cluster, browser: &Browser, options: &Options) {
    let mut driver = Driver::start(cluster).await;
    // The first window fills caches and pools, and is no result.
    driver.window(cluster, options.seconds).await;
    for (name, pairs, has_browser) in [
        ("clients of the event stream", options.pairs, false),
        ("clients of the event stream and a browser", options.browser_pairs, true),
    ] {
        let (mut ratios, mut heads) = (Vec::new(), Vec::new());
        for pair in 0..pairs {
            // The order alternates, so that a drift of the machine does not favour one side.
            let order = if pair % 2 == 0 { [false, true] } else { [true, false] };
            let mut windows = [Window::default(); 2];
            for is_watched in order {
                let viewers = if is_watched { options.clients } else { 0 };
                let clients = Clients::connect(cluster, viewers).await;
                if is_watched && has_browser {
                    browser.goto(&format!("{}/#/", cluster.url)).await;
                    browser.until("document.querySelector('.connection')?.textContent === 'Live'").await;
                }
                expect_viewers(cluster, viewers + usize::from(is_watched && has_browser)).await;
                let before = clients.samples();
                windows[usize::from(is_watched)] = driver.window(cluster, options.seconds).await;
                clients.assert_have_read(&before, options.seconds);
                drop(clients);
                browser.goto("about:blank").await;
                expect_viewers(cluster, 0).await;
            }
            let [without, with] = windows;
            let ratio = with.micros_per_call / without.micros_per_call;
            println!(
                "pair {}: {:.3} and {:.3} µs of CPU a call, ratio {ratio:.4}; {:.0} and {:.0} calls/s; head {:.2} and {:.2} %",
                pair + 1,
                without.micros_per_call,
                with.micros_per_call,
                without.calls_per_s,
                with.calls_per_s,
                100.0 * without.head,
                100.0 * with.head,
            );
            ratios.push(ratio);
            heads.push(100.0 * with.head);
        }
        if !ratios.is_empty() {
            println!(
                "{} {name}: median ratio {:.4}, head at a median of {:.2} % of a CPU",
                options.clients,
                median(&ratios),
                median(&heads)
            );
        }
    }
    driver.end().await;
}

/// Figures of one window of calls.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// Processor time of driver and worker.
    micros_per_call: f64,
    calls_per_s: f64,
    /// Processor time of the head, as a share of the window.
    head: f64,
}

/// Running program `paced_calls`.
struct Driver {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    worker: u32,
}

impl Driver {
    async fn start(cluster: &Cluster) -> Self {
        let mut command = cluster.program("paced_calls");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        assert_eq!(output.next_line().await.unwrap().as_deref(), Some("ready"));
        let workers = cluster.list("workers", "state=ALIVE").await;
        let [worker] = &workers[..] else { panic!("not one worker: {workers:?}") };
        let worker = u32::try_from(worker["pid"].as_u64().unwrap()).unwrap();
        Self { process, input, output, worker }
    }

    /// Makes calls for a time, and measures all processes meanwhile.
    async fn window(&mut self, cluster: &Cluster, seconds: u64) -> Window {
        let (own, head) = (self.process.id().expect("the driver runs"), cluster.head_pid());
        let times = || [own, self.worker, head].map(CpuTime::of);
        let (before, begun) = (times(), Instant::now());
        self.input.write_all(format!("{}\n", 1000 * seconds).as_bytes()).await.unwrap();
        let line = self.output.next_line().await.unwrap().expect("the driver runs");
        let (after, elapsed) = (times(), begun.elapsed().as_secs_f64());
        let (calls, millis) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        let (calls, millis): (f64, f64) = (calls.parse().unwrap(), millis.parse().unwrap());
        let taken: Vec<_> =
            after.iter().zip(&before).map(|(after, before)| after.since(before).as_secs_f64()).collect();
        let ended: usize = (0..2).map(|process| after[process].ended_since(&before[process])).sum();
        if ended > 0 {
            println!("  {ended} threads have ended within the next window, and their time is not in it");
        }
        Window {
            micros_per_call: 1e6 * (taken[0] + taken[1]) / calls,
            calls_per_s: 1e3 * calls / millis,
            head: taken[2] / elapsed,
        }
    }

    async fn end(self) {
        let Self { mut process, input, .. } = self;
        // The end of its input ends it.
        drop(input);
        assert!(process.wait().await.unwrap().success());
    }
}

/// Clients of the event stream. They read and count, and end when they are dropped.
struct Clients(Vec<(Arc<AtomicU64>, JoinHandle<()>)>);

impl Clients {
    async fn connect(cluster: &Cluster, number: usize) -> Self {
        let mut clients = Self(Vec::new());
        for _ in 0..number {
            let stream = request(cluster, "/api/v0/stream").await;
            let samples = Arc::new(AtomicU64::new(0));
            clients.0.push((samples.clone(), tokio::spawn(read_samples(stream, samples))));
        }
        clients
    }

    fn samples(&self) -> Vec<u64> {
        self.0.iter().map(|(samples, _)| samples.load(Ordering::Relaxed)).collect()
    }

    /// Checks that each client has read about the samples of the time.
    fn assert_have_read(&self, before: &[u64], seconds: u64) {
        for ((client, before), (_, task)) in self.samples().iter().zip(before).zip(&self.0) {
            assert!(!task.is_finished(), "the head has disconnected a client");
            // One each 2 s, and of a window that begins and ends between two one less.
            assert!(client - before + 1 >= seconds / 2, "a client has read {} samples", client - before);
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.0.iter().for_each(|(_, task)| task.abort());
    }
}

/// Reads an event stream, and counts its samples.
async fn read_samples(mut stream: TcpStream, samples: Arc<AtomicU64>) {
    const NAME: &[u8] = b"event: sample";
    let (mut text, mut buffer) = (Vec::new(), [0; 16 << 10]);
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        text.extend_from_slice(&buffer[..length]);
        while let Some(at) = text.windows(NAME.len()).position(|part| part == NAME) {
            text.drain(..at + NAME.len());
            samples.fetch_add(1, Ordering::Relaxed);
        }
        // A name may be cut by the end of what was read.
        text.drain(..text.len().saturating_sub(NAME.len() - 1));
    }
}

/// Waits until the head counts as many viewers.
pub(crate) async fn expect_viewers(cluster: &Cluster, number: usize) {
    let (line, begun) = (format!("roadshow_dashboard_stream_clients {number}.0"), Instant::now());
    // The head notices that a client has left when it sends the next event.
    while !get(cluster, "/metrics").await.lines().any(|it| it == line) {
        assert!(begun.elapsed() < WAIT, "the head has never had {number} viewers");
        tokio::time::sleep(POLL).await;
    }
}

/// Sends a request with the token.
async fn request(cluster: &Cluster, path: &str) -> TcpStream {
    let host = cluster.url.strip_prefix("http://").expect("a loopback dashboard has no TLS");
    let address: SocketAddr = host.parse().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let token = &cluster.token;
    let text = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n");
    let close = if path == "/api/v0/stream" { "" } else { "Connection: close\r\n" };
    stream.write_all(format!("{text}{close}\r\n").as_bytes()).await.unwrap();
    stream
}

/// Reply to a request, with its head.
async fn get(cluster: &Cluster, path: &str) -> String {
    let mut reply = String::new();
    request(cluster, path).await.read_to_string(&mut reply).await.unwrap();
    reply
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
