//! What workers of a local cluster print, and what of it is at the driver's terminal.

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

use super::driver::{Driver, PATIENCE, say};
use super::offspring::Sleeps;
use super::table::runs;

/// A task prints a piece of a progress bar, and then does nothing for so long.
const STEP: Duration = Duration::from_millis(10);

/// How long a shutdown may take whose workers end at once.
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

/// Prints numbered lines in several pieces each, to both streams.
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

/// Prints what is no ordinary line.
#[roadshow::task]
fn print_oddities() {
    println!("{}", "x".repeat(300_000));
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(b"\xff\x00 is no text\r\n").unwrap();
    print!("no end");
}

#[roadshow::task]
fn crash() {
    eprintln!("it goes wrong");
    eprint!("last words");
    std::process::abort();
}

/// Starts a daemon that is not found when its worker ends, and keeps the worker's standard error; its number.
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

/// Asks for something, and goes on when there is a file.
#[roadshow::task]
fn ask(path: PathBuf) {
    eprint!("your name? ");
    let begun = Instant::now();
    while !path.exists() && begun.elapsed() < PATIENCE {
        thread::park_timeout(STEP);
    }
    eprintln!("nobody");
}

async fn shut_down(cluster: Cluster) {
    let begun = Instant::now();
    cluster.shutdown().await.unwrap();
    say(format_args!("ended in time: {}", begun.elapsed() < ENDS_WITHIN));
}

/// The driver: has workers print, and ends at once.
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
            say("all is printed");
        }
        "crash" => drop(cluster.run(crash::task()).await.unwrap_err()),
        "sleeper" => {
            say(cluster.run(start_a_sleeper::task()).await.unwrap());
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

/// A process that is ended with its test.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // It has ended where all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All that comes out of a stream, within a time.
#[track_caller]
fn all_of(mut stream: impl Read + Send + 'static) -> String {
    let (tell, told) = sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        tell.send(read.map(|_| String::from_utf8_lossy(&bytes).into_owned()))
    });
    told.recv_timeout(PATIENCE).expect("it ends in time").unwrap()
}

/// What is at the standard error of a driver that has done something and shut down.
#[track_caller]
fn shown_by(what: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let mut command = Driver::command(&format!("output {what}"));
    command.envs(variables.iter().copied());
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut driver = Guarded(command.spawn().unwrap());
    let shown = all_of(driver.0.stderr.take().unwrap());
    let said = all_of(driver.0.stdout.take().unwrap());
    assert!(driver.0.wait().unwrap().success(), "{said}\n{shown}");
    assert!(what.starts_with("drop") || said.contains("ended in time: true"), "{said}");
    shown.lines().map(str::to_owned).collect()
}

/// A line without the name of its worker, which it must have; and the process.
#[track_caller]
fn of_worker(line: &str) -> (u32, &str) {
    let labelled = line.strip_prefix("(worker pid=").or_else(|| line.strip_prefix("(Printer pid="));
    let parts = labelled.and_then(|rest| rest.split_once(", node="));
    let parts = parts.and_then(|(pid, rest)| Some((pid, rest.split_once(") ")?)));
    let Some((pid, (node, text))) = parts else { panic!("whose is {line:?}?") };
    assert!(node.len() == 4 && node.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line}");
    (pid.parse().unwrap(), text)
}

#[test]
fn lines_of_many_workers_are_whole_labelled_and_in_order() {
    let shown = shown_by("lines 2000", &[]);
    let mut next = BTreeMap::new();
    for line in &shown {
        let (pid, text) = of_worker(line);
        let (rest, stream) = text.rsplit_once('|').unwrap_or_else(|| panic!("torn: {line:?}"));
        let number = next.entry((pid, stream.to_owned())).or_insert(0);
        // A worker may have had two of the tasks.
        let i = *number % 2000;
        assert_eq!(rest, format!("w{pid}|{i}|{i}|{i}"), "{line}");
        *number += 1;
    }
    assert_eq!((shown.len(), next.values().sum::<usize>()), (4 * 2 * 2000, 4 * 2 * 2000));
}

#[test]
fn what_is_no_ordinary_line_is_shown_as_well_as_can_be() {
    let shown = shown_by("oddities", &[]);
    let texts: Vec<_> = shown.iter().map(|line| of_worker(line).1).collect();
    assert_eq!(texts, [&"x".repeat(300_000), "\u{fffd}^@ is no text", "no end"]);
}

#[test]
fn last_words_of_a_worker_that_crashes_are_shown() {
    let shown = shown_by("crash", &[("ROADSHOW_LOG", "off")]);
    let texts: Vec<_> = shown.iter().map(|line| of_worker(line).1).collect();
    assert_eq!(texts, ["it goes wrong", "last words"]);
}

#[test]
fn a_process_that_a_worker_has_left_behind_holds_up_no_shutdown() {
    let mut driver = Driver::start(Driver::command("output sleeper"));
    let sleeper = Sleeps(vec![driver.hear().parse().unwrap()]);
    assert_eq!(driver.hear(), "ended in time: true");
    assert!(runs(sleeper.0[0]), "it is left behind");
    assert!(driver.wait().success());
    assert_eq!(of_worker(&driver.output().1[0]).1, "a sleeper starts");
}

#[test]
fn what_was_printed_is_shown_also_when_the_cluster_is_dropped() {
    assert_eq!(shown_by("drop 10", &[]).len(), 20);
}

#[test]
fn the_last_state_of_a_progress_bar_is_shown_while_it_changes() {
    let shown = shown_by("progress 200", &[]);
    let states: Vec<_> = shown.iter().map(|line| of_worker(line).1).collect();
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
    assert_eq!(of_worker(&shown[0]).1, "your name? nobody");
}

#[test]
fn lines_are_folded_across_workers_and_never_within_one() {
    let borders = |shown: &[String]| shown.iter().filter(|line| of_worker(line).1 == "+---+").count();
    let ready = |shown: &[String]| {
        let texts = shown.iter().map(|line| of_worker(line).1.to_owned());
        texts.filter(|text| text.starts_with("ready")).collect::<Vec<_>>()
    };
    let shown = shown_by("fold", &[]);
    assert_eq!((borders(&shown), shown.len()), (3, 7), "{shown:?}");
    assert_eq!(ready(&shown), ["ready", "ready [repeated 3x across the cluster]"]);
    // What lives in a worker is told on another way than what it prints.
    assert!(shown.iter().any(|line| line.starts_with("(Printer pid=")), "{shown:?}");

    let shown = shown_by("fold", &[("ROADSHOW_DEDUP_LOGS", "0")]);
    assert_eq!((borders(&shown), ready(&shown)), (3, vec!["ready".to_owned(); 4]), "{shown:?}");
}

#[test]
fn a_terminal_that_is_gone_stops_neither_driver_nor_workers() {
    let mut command = Driver::command("output bytes 1000");
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut driver = Guarded(command.spawn().unwrap());
    drop(driver.0.stderr.take());
    let said = all_of(driver.0.stdout.take().unwrap());
    assert!(said.contains("all is printed") && said.contains("ended in time: true"), "{said}");
    assert!(driver.0.wait().unwrap().success());
}

#[test]
fn a_terminal_that_does_not_read_stops_no_worker_and_is_told_what_it_has_missed() {
    const LINES: usize = 12_000;
    let mut driver = Driver::start_without_stderr(Driver::command(&format!("output bytes {LINES}")));
    assert_eq!(driver.0.hear(), "all is printed");
    let shown = all_of(driver.1.take().unwrap());
    assert!(driver.0.wait().success());
    let (mut printed, mut lost) = (0, 0);
    for line in shown.lines() {
        let notice =
            line.strip_prefix("(roadshow) ").and_then(|rest| rest.split_once(" lines were not shown"));
        match notice {
            Some((count, _)) => lost += count.parse::<usize>().unwrap(),
            None => {
                assert_eq!(of_worker(line).1.len(), 999);
                printed += 1;
            }
        }
    }
    assert!(lost > 0);
    assert_eq!(printed + lost, LINES);
}
