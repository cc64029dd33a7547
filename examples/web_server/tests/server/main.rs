//! Tests of the server from a client's view: started, queried over HTTP, and stopped by a signal.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in what its functions have in common"
)]

#[cfg(feature = "otlp")]
mod collector;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Maximum time of a step on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Running server. Dropping it kills it, and its workers end with it.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        // With the feature `otlp` the server looks for a collector; no test of the machine's may answer.
        Self::start_with_collector("http://127.0.0.1:1")
    }

    fn start_with_collector(collector: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_web_server"))
            .arg("127.0.0.1:0")
            .env("ROADSHOW_WORKERS", "2")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
            .env_remove("ROADSHOW_ADDRESS")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = process.stdout.take().unwrap();
        let mut server = Self { process, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let line = in_time(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let address = line.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line:?}"));
        server.address = address.parse().unwrap();
        server
    }

    /// Sends a request and returns status and body.
    fn ask(&self, method: &str, path: &str) -> (u16, String) {
        ask(self.address, method, path)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Connects a client that sends half a request and stays.
    fn hold_up(&self) -> TcpStream {
        let mut silent = TcpStream::connect(self.address).unwrap();
        write!(silent, "GET /square/").unwrap();
        // Connections are accepted in order: after this answer the other one has been accepted.
        assert_eq!(self.ask("GET", "/square/2").0, 200);
        silent
    }

    /// Returns the server's standard error. Call it after the end.
    fn stderr_text(&mut self) -> String {
        let mut stderr = self.process.stderr.take().unwrap();
        in_time(move || {
            let mut stderr_text = String::new();
            stderr.read_to_string(&mut stderr_text).map(|_| stderr_text)
        })
    }

    /// Waits for the server's end.
    fn ends(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "the server does not end");
            thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that the server has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the text read, which must arrive in time.
#[track_caller]
fn in_time(read: impl FnOnce() -> std::io::Result<String> + Send + 'static) -> String {
    // A read may block forever. The thread is left behind then, and the test still fails in time.
    let (sender, result) = sync_channel(1);
    thread::spawn(move || sender.send(read()));
    result.recv_timeout(PATIENCE).expect("the server writes in time").unwrap()
}

/// Sends the request and reads the whole answer.
fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    ask_with(address, method, path, "")
}

/// [`ask`] with further headers, each with its line end.
fn ask_with(address: SocketAddr, method: &str, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{headers}connection: close\r\n\r\n")
        .unwrap();
    answer(&mut stream)
}

fn answer(stream: &mut TcpStream) -> (u16, String) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{head:?}")), body.to_owned())
}

#[test]
fn requests_are_answered_by_actors_and_tasks() {
    let server = Server::start();
    assert_eq!(server.ask("GET", "/square/12"), (200, "144".to_owned()));
    assert_eq!(server.ask("POST", "/visits/home"), (200, "1".to_owned()));
    assert_eq!(server.ask("POST", "/visits/home"), (200, "2".to_owned()));
    assert_eq!(server.ask("GET", "/report/1"), (200, "3".to_owned()), "the report is a visit, too");
    let asking = |n: u64| {
        thread::spawn({
            let address = server.address;
            move || ask(address, "GET", &format!("/square/{n}"))
        })
    };
    let asked: Vec<_> = (0..20).map(asking).collect();
    for (n, answered) in (0..20u64).zip(asked) {
        assert_eq!(answered.join().unwrap(), (200, (n * n).to_string()));
    }
}

#[test]
fn each_error_has_its_own_status() {
    let server = Server::start();
    assert_eq!(server.ask("GET", "/square/5000000000").0, 422);
    assert_eq!(server.ask("GET", "/quotient/1/0").0, 500, "the task panics");
    assert_eq!(server.ask("GET", "/report/3600000").0, 504, "the report takes an hour");
    assert_eq!(server.ask("DELETE", "/visits").0, 204);
    assert_eq!(server.ask("POST", "/visits/home").0, 503, "the actor has stopped");
    assert_eq!(server.ask("GET", "/quotient/6/2"), (200, "3".to_owned()), "the server still answers");
}

#[test]
fn a_signal_ends_the_server_after_open_requests_are_answered() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start();
        let (status, workers) = server.ask("GET", "/workers");
        let workers: Vec<u32> =
            workers.trim_matches(['[', ']']).split(',').map(|pid| pid.parse().unwrap()).collect();
        assert_eq!((status, workers.len()), (200, 2));

        let mut open = TcpStream::connect(server.address).unwrap();
        open.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(open, "GET /report/1000 HTTP/1.1\r\nhost: {}\r\n\r\n", server.address).unwrap();
        // The request is being handled once the actor has counted a visit that did not come from this loop.
        let since = Instant::now();
        let is_handled = (1u64..)
            .take_while(|_| since.elapsed() < PATIENCE)
            .any(|asked| server.ask("POST", "/visits/report").1 != asked.to_string());
        assert!(is_handled, "{signal:?}");
        server.signal(signal);
        let (status, _) = answer(&mut open);
        assert_eq!(status, 200, "{signal:?}");
        assert_eq!(server.ends().code(), Some(0), "{signal:?}");
        for pid in workers {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "worker {pid} is left");
        }
    }
}

#[test]
fn a_client_that_sends_half_a_request_does_not_block_the_end_of_the_server() {
    let mut server = Server::start();
    let _silent = server.hold_up();
    server.signal(Signal::TERM);
    assert_eq!(server.ends().code(), Some(1));
    let stderr_text = server.stderr_text();
    assert!(stderr_text.contains("did not end within"), "{stderr_text}");
}

#[test]
fn a_second_signal_ends_the_server_immediately() {
    let mut server = Server::start();
    let _silent = server.hold_up();
    server.signal(Signal::TERM);
    // Two pending signals of one kind are delivered as one.
    server.signal(Signal::INT);
    assert_eq!(server.ends().code(), Some(1));
    let stderr_text = server.stderr_text();
    assert!(stderr_text.contains("a second signal"), "{stderr_text}");
}

#[cfg(feature = "otlp")]
#[test]
fn the_spans_of_a_request_form_one_tree() {
    let collector = collector::Collector::start();
    let mut server = Server::start_with_collector(&collector.endpoint());
    let (trace_id, client_span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let parent = format!("traceparent: 00-{trace_id}-{client_span}-01\r\n");
    assert_eq!(ask_with(server.address, "GET", "/report/1", &parent).0, 200);
    assert_eq!(server.ask("GET", "/square/12").0, 200);
    assert_eq!(server.ask("GET", "/quotient/1/0").0, 500, "the task panics");
    server.signal(Signal::TERM);
    assert_eq!(server.ends().code(), Some(0));
    let spans = collector.spans();
    let named = |name: &str| {
        let mut all = spans.iter().filter(|span| span.name == name);
        let found = all.next().unwrap_or_else(|| panic!("no span {name:?} in {spans:?}"));
        assert!(all.next().is_none(), "{name} is in {spans:?} once");
        found
    };
    let request = named("GET /report/{milliseconds}");
    assert_eq!((&*request.trace_id, &*request.parent_id), (trace_id, client_span));
    for handler in ["Visits Visit", "Visits Report"] {
        let handler = named(handler);
        assert_eq!((&handler.trace_id, &handler.parent_id), (&request.trace_id, &request.span_id));
        assert_ne!(handler.process, request.process, "the actor is in a worker");
    }
    assert!(named("Visits Report").nanoseconds >= 1_000_000, "the span covers the handler's future");
    let (request, task) = (named("GET /square/{n}"), named("square"));
    assert_eq!((&task.trace_id, &task.parent_id), (&request.trace_id, &request.span_id));
    assert_ne!(task.trace_id, trace_id);
    assert!(named("quotient").has_failed && !task.has_failed, "{spans:?}");
}

#[cfg(feature = "otlp")]
#[test]
fn a_collector_behind_tls_is_refused_with_the_remedy_and_the_server_goes_on() {
    let mut server = Server::start_with_collector("https://127.0.0.1:1");
    assert_eq!(server.ask("GET", "/square/12"), (200, "144".to_owned()));
    server.signal(Signal::TERM);
    assert_eq!(server.ends().code(), Some(0));
    let stderr_text = server.stderr_text();
    assert!(stderr_text.contains("plain HTTP") && stderr_text.contains("OTEL_EXPORTER"), "{stderr_text}");
}
