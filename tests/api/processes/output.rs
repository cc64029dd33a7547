//! Output of the workers of a local cluster, and its form at the driver's terminal.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use roadshow::prelude::*;

use super::descendants::Sleeps;
use super::driver::{Driver, PATIENCE, report};
use super::process_table::runs;

/// Pause after each step of the progress bar.
const STEP: Duration = Duration::from_millis(10);

/// Maximum time of a shutdown whose workers end immediately.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

#[derive(RemoteActor)]
#[remote(handles(Print))]
struct Printer;

impl Actor for Printer {
    type Context = Context<Self>;
}

impl Spawn for Printer {
    type Args = ();
    type Error = Infallible;
    fn spawn((): (), _: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Print(String);

impl Handler<Print> for Printer {
    type Result = ();
    fn handle(&mut self, Print(text): Print, _: &mut Context<Self>) {
        println!("{text}");
    }
}

/// Prints numbered lines to both streams; each line is written in several pieces.
#[roadshow::task]
fn print_lines(count: usize) {
    let pid = std::process::id();
    for i in 0..count {
        eprintln!("w{}|{i}|{i}|{i}|err", pid);
        println!("w{}|{i}|{i}|{i}|out", pid);
    }
}

#[roadshow::task]
fn print_bytes(count: usize) {
    for i in 0..count {
        println!("{i:0999}");
    }
}

/// Prints a very long line, invalid UTF-8, and a line without an end.
#[roadshow::task]
fn print_oddities() {
    println!("{}", "x".repeat(300_000));
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(b"\xff\x00 is no text\r\n").unwrap();
    print!("no end");
}

#[roadshow::task]
fn crash() {
    eprintln!("about to crash");
    eprint!("last output");
    std::process::abort();
}

/// Starts a daemon that survives its worker and keeps the worker's standard error open; returns its pid.
#[roadshow::task]
fn start_a_sleeper() -> u32 {
    println!("a sleeper starts");
    let mut shell = Command::new("sh");
    shell.args(["-c", "(env -i setsid sh -c 'echo $$; exec sleep 60' &)"]);
    let mut shell = shell.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    shell.wait().unwrap();
    line.trim().parse().unwrap()
}

#[roadshow::task]
fn show_progress(steps: usize) {
    for step in 0..steps {
        print!("\r{step} of {steps}");
        std::io::stdout().flush().unwrap();
        thread::park_timeout(STEP);
    }
}

/// Prints a prompt without a line end, and continues when the file exists.
#[roadshow::task]
fn ask(path: PathBuf) {
    eprint!("your name? ");
    let begun = Instant::now();
    while !path.exists() && begun.elapsed() < PATIENCE {
        thread::park_timeout(STEP);
    }
    eprintln!("default");
}

async fn shut_down(cluster: Cluster) {
    let begun = Instant::now();
    cluster.shutdown().await.unwrap();
    report(format_args!("ended in time: {}", begun.elapsed() < ENDS_WITHIN));
}

/// Driver: lets workers print, and ends immediately.
pub(super) async fn drive(what: &str) {
    let (what, argument) = what.split_once(' ').unwrap_or((what, ""));
    let workers = if what == "lines" || what == "fold" { 4 } else { 1 };
    let cluster = Cluster::local(workers).await.unwrap();
    let number = || argument.parse().unwrap();
    match what {
        "lines" => drop(cluster.run_all((0..workers).map(|_| print_lines::task(number()))).await.unwrap()),
        "oddities" => cluster.run(print_oddities::task()).await.unwrap(),
        "bytes" => {
            cluster.run(print_bytes::task(number())).await.unwrap();
            report("all lines are printed");
        }
        "crash" => drop(cluster.run(crash::task()).retries(0).await.unwrap_err()),
        "sleeper" => {
            report(cluster.run(start_a_sleeper::task()).await.unwrap());
        }
        "progress" => cluster.run(show_progress::task(number())).await.unwrap(),
        "ask" => cluster.run(ask::task(argument.into())).await.unwrap(),
        "fold" => {
            let actors = join_all((0..workers).map(|_| cluster.spawn::<Printer>(()).into_future())).await;
            for actor in actors.iter().map(|actor| actor.as_ref().unwrap()) {
                actor.send(Print("ready".to_owned())).await.unwrap();
            }
            let table = "+---+\n| 1 |\n+---+\n| 2 |\n+---+";
            actors[0].as_ref().unwrap().send(Print(table.to_owned())).await.unwrap();
        }
        "drop" => {
            cluster.run(print_lines::task(number())).await.unwrap();
            drop(cluster);
            std::process::exit(0);
        }
        _ => panic!("no such thing: {what}"),
    }
    shut_down(cluster).await;
    std::process::exit(0);
}

/// Process that is killed when its test ends.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // An error means that the process has ended already, as expected.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns all bytes of a stream, which must end in time.
#[track_caller]
fn all_of(mut stream: impl Read + Send + 'static) -> String {
    let (sender, result) = sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        sender.send(read.map(|_| String::from_utf8_lossy(&bytes).into_owned()))
    });
    result.recv_timeout(PATIENCE).expect("the stream ends in time").unwrap()
}

/// Runs a driver to its end and returns the lines of its standard error.
#[track_caller]
fn shown_by(what: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let mut command = Driver::command(&format!("output {what}"));
    command.envs(variables.iter().copied());
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut driver = Guarded(command.spawn().unwrap());
    let shown = all_of(driver.0.stderr.take().unwrap());
    let stdout = all_of(driver.0.stdout.take().unwrap());
    assert!(driver.0.wait().unwrap().success(), "{stdout}\n{shown}");
    assert!(what.starts_with("drop") || stdout.contains("ended in time: true"), "{stdout}");
    shown.lines().map(str::to_owned).collect()
}

/// Splits a line into the worker's pid and the text; the line must have a label.
#[track_caller]
fn split_label(line: &str) -> (u32, &str) {
    let labelled = line.strip_prefix("(worker pid=").or_else(|| line.strip_prefix("(Printer pid="));
    let parts = labelled.and_then(|rest| rest.split_once(", node="));
    let parts = parts.and_then(|(pid, rest)| Some((pid, rest.split_once(") ")?)));
    let Some((pid, (node, text))) = parts else { panic!("no label: {line:?}") };
    assert!(node.len() == 4 && node.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line}");
    (pid.parse().unwrap(), text)
}

#[test]
fn lines_of_many_workers_are_whole_labelled_and_in_order() {
    let shown = shown_by("lines 2000", &[]);
    let mut next = BTreeMap::new();
    for line in &shown {
        let (pid, text) = split_label(line);
        let (rest, stream) = text.rsplit_once('|').unwrap_or_else(|| panic!("torn: {line:?}"));
        let number = next.entry((pid, stream.to_owned())).or_insert(0);
        // A worker may have run two of the tasks.
        let i = *number % 2000;
        assert_eq!(rest, format!("w{pid}|{i}|{i}|{i}"), "{line}");
        *number += 1;
    }
    assert_eq!((shown.len(), next.values().sum::<usize>()), (4 * 2 * 2000, 4 * 2 * 2000));
}

#[test]
fn unusual_lines_are_shown_with_replaced_bytes() {
    let shown = shown_by("oddities", &[]);
    let texts: Vec<_> = shown.iter().map(|line| split_label(line).1).collect();
    assert_eq!(texts, [&"x".repeat(300_000), "\u{fffd}^@ is no text", "no end"]);
}

#[test]
fn last_output_of_a_crashed_worker_is_shown() {
    let shown = shown_by("crash", &[("ROADSHOW_LOG", "off")]);
    let texts: Vec<_> = shown.iter().map(|line| split_label(line).1).collect();
    assert_eq!(texts, ["about to crash", "last output"]);
}

#[test]
fn a_process_that_outlives_its_worker_does_not_delay_the_shutdown() {
    let mut driver = Driver::start(Driver::command("output sleeper"));
    let sleeper = Sleeps(vec![driver.next_report().parse().unwrap()]);
    assert_eq!(driver.next_report(), "ended in time: true");
    assert!(runs(sleeper.0[0]), "the process outlives its worker");
    assert!(driver.wait().success());
    assert_eq!(split_label(&driver.output().1[0]).1, "a sleeper starts");
}

#[test]
fn output_is_shown_even_if_the_cluster_is_dropped() {
    assert_eq!(shown_by("drop 10", &[]).len(), 20);
}

#[test]
fn a_progress_bar_is_shown_in_its_latest_state() {
    let shown = shown_by("progress 200", &[]);
    let states: Vec<_> = shown.iter().map(|line| split_label(line).1).collect();
    assert!(states.len() > 2 && states.len() < 100, "{states:?}");
    assert_eq!(states.last(), Some(&"199 of 200"), "{states:?}");
    assert!(states.iter().all(|state| state.ends_with(" of 200") && !state.contains('^')), "{states:?}");
}

#[test]
fn a_prompt_is_shown_before_its_line_ends() {
    let path = std::env::temp_dir().join(format!("roadshow-{}-answer", std::process::id()));
    let mut driver = Driver::start(Driver::command(&format!("output ask {}", path.display())));
    driver.wait_for_error_lines(&["your name? "], 1);
    std::fs::write(&path, "").unwrap();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| driver.wait()));
    std::fs::remove_file(&path).unwrap();
    assert!(ended.unwrap().success());
    let (_, shown) = driver.output();
    assert_eq!(split_label(&shown[0]).1, "your name? default");
}

#[test]
fn lines_are_deduplicated_across_workers_and_never_within_one() {
    let borders = |shown: &[String]| shown.iter().filter(|line| split_label(line).1 == "+---+").count();
    let ready = |shown: &[String]| {
        let texts = shown.iter().map(|line| split_label(line).1.to_owned());
        texts.filter(|text| text.starts_with("ready")).collect::<Vec<_>>()
    };
    let shown = shown_by("fold", &[]);
    assert_eq!((borders(&shown), shown.len()), (3, 7), "{shown:?}");
    assert_eq!(ready(&shown), ["ready", "ready [repeated 3x across the cluster]"]);
    // The label of an actor arrives over the control socket, not with the worker's output, so not every
    // line has it.
    assert!(shown.iter().any(|line| line.starts_with("(Printer pid=")), "{shown:?}");

    let shown = shown_by("fold", &[("ROADSHOW_DEDUP_LOGS", "0")]);
    assert_eq!((borders(&shown), ready(&shown)), (3, vec!["ready".to_owned(); 4]), "{shown:?}");
}

#[test]
fn a_closed_terminal_stops_neither_driver_nor_workers() {
    let mut command = Driver::command("output bytes 1000");
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut driver = Guarded(command.spawn().unwrap());
    drop(driver.0.stderr.take());
    let stdout = all_of(driver.0.stdout.take().unwrap());
    assert!(stdout.contains("all lines are printed") && stdout.contains("ended in time: true"), "{stdout}");
    assert!(driver.0.wait().unwrap().success());
}

#[test]
fn a_terminal_that_does_not_read_stops_no_worker_and_gets_the_number_of_lost_lines() {
    const LINES: usize = 12_000;
    let mut driver = Driver::start_without_stderr(Driver::command(&format!("output bytes {LINES}")));
    assert_eq!(driver.0.next_report(), "all lines are printed");
    let shown = all_of(driver.1.take().unwrap());
    assert!(driver.0.wait().success());
    let (mut printed, mut lost) = (0, 0);
    for line in shown.lines() {
        let notice =
            line.strip_prefix("(roadshow) ").and_then(|rest| rest.split_once(" lines were not shown"));
        match notice {
            Some((count, _)) => lost += count.parse::<usize>().unwrap(),
            None => {
                assert_eq!(split_label(line).1.len(), 999);
                printed += 1;
            }
        }
    }
    assert!(lost > 0);
    assert_eq!(printed + lost, LINES);
}
