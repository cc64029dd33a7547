//! Tests of the capture, with pipes whose write ends the tests hold.

use std::fs::{self, File};
use std::io::{PipeWriter, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::cluster::model::{JobId, WorkerId};
use crate::cluster::test_dir::TestDir;
use crate::config::{LOG_LINE_BYTES_MAX, LOG_LINES_QUEUED_MAX};

const NAME: LogName = LogName::Worker { worker: WorkerId(1), job: JobId(2), pid: 3 };

/// Time limit of a test; exceeding it is a failure.
const LIMIT: Duration = Duration::from_secs(60);

struct Child {
    out: PipeWriter,
    err: PipeWriter,
    capture: Capture,
    lines: mpsc::Receiver<Captured>,
}

fn child(dir: &TestDir) -> Child {
    let (out_end, out) = io::pipe().unwrap();
    let (err_end, err) = io::pipe().unwrap();
    let (to, lines) = mpsc::channel(LOG_LINES_QUEUED_MAX);
    let capture = Capture::start(Some((dir.path(), NAME)), out_end.into(), err_end.into(), to).unwrap();
    Child { out, err, capture, lines }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it ends in time")
}

fn log(dir: &TestDir, stream: Stream) -> PathBuf {
    dir.join(&NAME.file(stream))
}

fn text(dir: &TestDir, stream: Stream) -> String {
    fs::read_to_string(log(dir, stream)).unwrap()
}

/// Collects the remaining lines of one stream.
async fn rest(lines: &mut mpsc::Receiver<Captured>, stream: Stream) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(captured) = lines.recv().await {
        let (on, lines, _) = text_of(captured);
        if on == stream {
            all.extend(lines);
        }
    }
    all
}

#[track_caller]
fn text_of(captured: Captured) -> (Stream, Vec<String>, Option<String>) {
    match captured {
        Captured::Text { stream, lines, unfinished } => (stream, lines, unfinished),
        Captured::Flushed(_) => panic!("a flush without a request"),
    }
}

#[tokio::test]
async fn output_is_written_to_the_logs_and_sent() {
    let dir = TestDir::new();
    let (out_end, out) = io::pipe().unwrap();
    let (err_end, err) = io::pipe().unwrap();
    let mut process = Command::new("sh")
        .args(["-c", "echo one; echo two >&2; printf last"])
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .unwrap();
    let (to, mut lines) = mpsc::channel(LOG_LINES_QUEUED_MAX);
    let capture = Capture::start(Some((dir.path(), NAME)), out_end.into(), err_end.into(), to).unwrap();
    assert!(process.wait().unwrap().success());
    within(capture.finish()).await;
    assert_eq!((text(&dir, Stream::Out), text(&dir, Stream::Err)), ("one\nlast".into(), "two\n".into()));
    assert_eq!(fs::metadata(log(&dir, Stream::Err)).unwrap().mode() & 0o777, 0o600);
    let mut all = Vec::new();
    while let Some(captured) = lines.recv().await {
        let (stream, lines, _) = text_of(captured);
        all.extend(lines.into_iter().map(|line| (stream, line)));
    }
    all.sort_by_key(|(stream, _)| *stream == Stream::Err);
    let expected = [(Stream::Out, "one"), (Stream::Out, "last"), (Stream::Err, "two")];
    assert_eq!(all, expected.map(|(stream, line)| (stream, line.to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_grandchild_that_holds_the_pipe_does_not_keep_the_capture_alive() {
    let dir = TestDir::new();
    let mut child = child(&dir);
    child.out.write_all(b"one\ntwo").unwrap();
    within(child.capture.finish()).await;
    assert_eq!(text(&dir, Stream::Out), "one\ntwo");
    assert_eq!(rest(&mut child.lines, Stream::Out).await, ["one", "two"]);
    let error = child.out.write_all(b"three\n").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_grandchild_that_prints_all_the_time_does_not_keep_the_capture_alive() {
    let dir = TestDir::new();
    let Child { mut out, err, capture, lines } = child(&dir);
    drop(lines);
    let grandchild = thread::spawn(move || while out.write_all(&[b'x'; 4096]).is_ok() {});
    within(capture.finish()).await;
    grandchild.join().unwrap();
    drop(err);
}

#[tokio::test(start_paused = true)]
async fn a_long_line_is_cut_for_the_terminal_and_whole_in_the_log() {
    let dir = TestDir::new();
    let mut child = child(&dir);
    let long = "x".repeat(LOG_LINE_BYTES_MAX + 1000);
    writeln!(child.out, "{long}").unwrap();
    drop((child.out, child.err));
    within(child.capture.finish()).await;
    assert_eq!(text(&dir, Stream::Out), format!("{long}\n"));
    let lines = rest(&mut child.lines, Stream::Out).await;
    assert_eq!(
        lines,
        [format!("{}{}", &long[..LOG_LINE_BYTES_MAX], crate::cluster::output::lines::TRUNCATION_MARK)]
    );
}

#[tokio::test]
async fn lines_without_a_receiver_are_counted_reported_and_in_the_log() {
    let dir = TestDir::new();
    let Child { mut out, err, capture, mut lines } = child(&dir);
    // A read takes at most the content of a pipe: these are more reads than the queue holds.
    let count = 3 * LOG_LINES_QUEUED_MAX * LOG_READ_BYTES / 1000;
    let printing = spawn_blocking(move || {
        for number in 0..count {
            out.write_all(format!("{number:0999}\n").as_bytes()).unwrap();
        }
        (out, err)
    });
    let pipes = within(printing).await.unwrap();
    let end = async {
        drop(pipes);
        capture.finish().await;
    };
    let (all, ()) = within(async { tokio::join!(rest(&mut lines, Stream::Out), end) }).await;
    assert_eq!(fs::metadata(log(&dir, Stream::Out)).unwrap().len() % 1000, 0);

    let lost: Vec<usize> = all
        .iter()
        .filter_map(|line| line.strip_prefix("... ")?.split_once(" lines were not forwarded; they are in "))
        .map(|(lost, file)| {
            assert!(file.ends_with(&format!("{}\"", NAME.file(Stream::Out))), "{file}");
            lost.parse::<usize>().unwrap()
        })
        .collect();
    assert!(!lost.is_empty());
    assert_eq!(all.len() - lost.len() + lost.iter().sum::<usize>(), count);
}

#[tokio::test]
async fn a_dropped_receiver_does_not_end_the_log() {
    let dir = TestDir::new();
    let Child { mut out, err, capture, lines } = child(&dir);
    drop(lines);
    out.write_all(b"one\n").unwrap();
    drop((out, err));
    within(capture.finish()).await;
    assert_eq!(text(&dir, Stream::Out), "one\n");
}

#[tokio::test]
async fn a_full_disk_delays_no_line_to_the_receiver() {
    let dir = TestDir::new();
    symlink("/dev/full", log(&dir, Stream::Out)).unwrap();
    let Child { mut out, err, capture, mut lines } = child(&dir);
    for number in 0..3 {
        writeln!(out, "{number}").unwrap();
        let captured = within(lines.recv()).await.unwrap();
        assert_eq!(text_of(captured).1, [number.to_string()]);
    }
    drop((out, err));
    within(capture.finish()).await;
}

#[tokio::test]
async fn a_log_continues_when_a_full_disk_has_room_again() {
    let dir = TestDir::new();
    let disk = log(&dir, Stream::Out);
    symlink("/dev/full", &disk).unwrap();
    let warned = Arc::new(AtomicBool::new(false));
    let (chunks, received) = mpsc::channel(1);
    let writing = tokio::spawn(write(disk.clone(), received, Arc::clone(&warned)));
    chunks.send(Bytes::from_static(b"one\ntwo\n")).await.unwrap();
    let fails = async {
        while !warned.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    };
    within(fails).await;
    fs::remove_file(&disk).unwrap();
    chunks.send(Bytes::from_static(b"three\n")).await.unwrap();
    drop(chunks);
    within(writing).await.unwrap();
    let text = text(&dir, Stream::Out);
    assert!(text.starts_with("... 8 bytes with 2 newlines are missing here: "), "{text}");
    assert!(text.ends_with("\nthree\n") && text.lines().count() == 2, "{text}");
    // The next failure is logged again.
    assert!(!warned.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_stream_without_output_leaves_no_file() {
    let dir = TestDir::new();
    let Child { mut out, err, capture, .. } = child(&dir);
    out.write_all(b"one\n").unwrap();
    drop((out, err));
    within(capture.finish()).await;
    let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files, [log(&dir, Stream::Out)]);
}

#[tokio::test]
async fn a_removed_directory_delays_no_line_to_the_receiver() {
    let dir = TestDir::new();
    fs::remove_dir(dir.path()).unwrap();
    let Child { mut out, err, capture, mut lines } = child(&dir);
    out.write_all(b"one\n").unwrap();
    drop((out, err));
    within(capture.finish()).await;
    assert_eq!(rest(&mut lines, Stream::Out).await, ["one"]);
}

#[tokio::test]
async fn a_blocked_disk_delays_neither_the_process_nor_its_lines() {
    let dir = TestDir::new();
    // Opening a FIFO for writing blocks until it has a reader.
    let disk = log(&dir, Stream::Out);
    mknodat(CWD, &disk, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let Child { mut out, err, capture, mut lines } = child(&dir);
    let count = 4 * LOG_READS_QUEUED_MAX * LOG_READ_BYTES / 1000;
    let printing = spawn_blocking(move || {
        for number in 0..count {
            out.write_all(format!("{number:0999}\n").as_bytes()).unwrap();
        }
        drop((out, err));
    });
    let mut got = 0;
    while got < count {
        got += text_of(within(lines.recv()).await.unwrap()).1.len();
    }
    within(printing).await.unwrap();
    let log = spawn_blocking(move || {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut File::open(disk).unwrap(), &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    });
    within(capture.finish()).await;
    let log = within(log).await.unwrap();
    let notice = log.lines().find_map(|line| line.strip_prefix("... ")?.split_once(" bytes are missing"));
    // The last loss is reported only if the queue has room for it.
    if let Some((missing, _)) = notice {
        let missing: usize = missing.parse().unwrap();
        assert!(missing > 0 && missing < count * 1000);
    }
    assert!(log.len() < count * 1000, "{} bytes", log.len());
}

#[tokio::test]
async fn each_state_of_a_progress_bar_is_shown() {
    let dir = TestDir::new();
    let Child { mut out, err, capture, mut lines } = child(&dir);
    for percent in ["1 %", "50 %"] {
        write!(out, "\r{percent}").unwrap();
        let shown = text_of(within(lines.recv()).await.unwrap());
        assert_eq!(shown, (Stream::Out, Vec::new(), Some(percent.to_owned())));
    }
    writeln!(out, "\r100 %").unwrap();
    assert_eq!(text_of(within(lines.recv()).await.unwrap()).1, ["100 %"]);
    drop((out, err));
    within(capture.finish()).await;
}

#[tokio::test]
async fn a_bar_that_never_pauses_is_shown_meanwhile() {
    let dir = TestDir::new();
    let Child { mut out, err, capture, mut lines } = child(&dir);
    let printing = thread::spawn(move || while out.write_all(b"\r1 %").is_ok() {});
    // A read may end in the middle of a write.
    let shown = text_of(within(lines.recv()).await.unwrap()).2.unwrap();
    assert!("1 %".starts_with(&shown), "{shown}");
    within(capture.finish()).await;
    printing.join().unwrap();
    drop(err);
}

#[tokio::test]
async fn a_flush_returns_everything_printed_before() {
    let dir = TestDir::new();
    let Child { mut out, err, capture, mut lines } = child(&dir);
    let flusher = capture.flusher();
    for round in 0..100 {
        write!(out, "{round}\nbegun").unwrap();
        let flush = flusher.flush();
        let mut all = Vec::new();
        let receiving = async {
            let mut flushed = 0;
            while flushed < 2 {
                match lines.recv().await.unwrap() {
                    Captured::Text { lines, unfinished, .. } => {
                        all.extend(lines);
                        all.extend(unfinished);
                    }
                    Captured::Flushed(done) => {
                        flushed += 1;
                        done.send(()).unwrap();
                    }
                }
            }
        };
        let (flushed, ()) = within(async { tokio::join!(flush, receiving) }).await;
        assert!(flushed);
        assert_eq!(all, [round.to_string(), "begun".to_owned()]);
        out.write_all(b"\n").unwrap();
    }
    drop((out, err));
    within(capture.finish()).await;
    assert!(!within(flusher.flush()).await);
}

#[tokio::test(start_paused = true)]
async fn without_a_log_a_process_waits_until_its_lines_are_received() {
    let (out_end, mut out) = io::pipe().unwrap();
    let (err_end, err) = io::pipe().unwrap();
    let (to, mut lines) = mpsc::channel(1);
    let capture = Capture::start(None, out_end.into(), err_end.into(), to).unwrap();
    let printing = thread::spawn(move || {
        for number in 0..100_000 {
            writeln!(out, "{number}").unwrap();
        }
    });
    // Longer than the delay that a process with a log can suffer.
    tokio::time::sleep(2 * LOG_STALL_MAX).await;
    let (all, ()) = within(async {
        tokio::join!(rest(&mut lines, Stream::Out), async {
            spawn_blocking(|| printing.join().unwrap()).await.unwrap();
            capture.finish().await;
        })
    })
    .await;
    drop(err);
    assert_eq!(all, (0..100_000).map(|number| number.to_string()).collect::<Vec<_>>());
}
