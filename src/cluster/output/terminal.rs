//! Driver's terminal, written by a thread of its own: a terminal that does not read blocks nothing else.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::OutputLine;
use super::bounded_sender::{BoundedSender, NotSent};
use crate::config::{OUTPUT_WAITING_BYTES_MAX, TERMINAL_QUEUE_MAX};

/// Pause before the next write to a terminal that is full and in non-blocking mode.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// Printer of the workers' output to standard error, whichever stream it came from: standard output belongs to the
/// program. Lines for which there is no room are dropped and counted, and the count is printed later.
#[derive(Debug)]
pub(super) struct Terminal {
    requests: BoundedSender<PrintRequest>,
    /// Bytes that may still be queued.
    room: Arc<Semaphore>,
    dropped: usize,
    /// Place of the lines that were not shown, as a part of a sentence.
    elsewhere: &'static str,
}

#[derive(Debug)]
enum PrintRequest {
    /// Text, with the room that it occupies until it is written.
    Text(String, Option<OwnedSemaphorePermit>),
    /// Resolves when everything before it is written.
    Written(oneshot::Sender<()>),
}

impl Terminal {
    /// Starts the printing thread. A line waits at most `room_timeout` for room.
    pub(super) fn start(room_timeout: Duration, elsewhere: &'static str) -> io::Result<Self> {
        let (requests, printed) = mpsc::channel(TERMINAL_QUEUE_MAX);
        thread::Builder::new()
            .name("roadshow-print".to_owned())
            .spawn(move || print_all(printed, |text| write_all(io::stderr(), text.as_bytes())))?;
        Ok(Self::new(BoundedSender::new(requests, Some(room_timeout)), elsewhere))
    }

    fn new(requests: BoundedSender<PrintRequest>, elsewhere: &'static str) -> Self {
        let room = Arc::new(Semaphore::new(OUTPUT_WAITING_BYTES_MAX as usize));
        Self { requests, room, dropped: 0, elsewhere }
    }

    /// Queues lines to be printed.
    pub(super) async fn print(&mut self, shown: &mut Vec<OutputLine>) {
        if shown.is_empty() {
            return;
        }
        let mut text = self.notice();
        let count = shown.len();
        for OutputLine { line, .. } in shown.drain(..) {
            text.push_str(&line);
            text.push('\n');
        }
        match self.send(text).await {
            Ok(()) => self.dropped = 0,
            Err(NotSent::Full | NotSent::Closed) => self.dropped += count,
        }
    }

    /// Resolves `written` when all queued lines are written; drops it if the terminal does not read.
    pub(super) async fn notify_written(&mut self, written: oneshot::Sender<()>) {
        self.requests.reset_stall();
        let notice = self.notice();
        if !notice.is_empty() && self.send(notice).await.is_ok() {
            self.dropped = 0;
        }
        // If there is no room, `written` is dropped.
        let _ = self.requests.send(PrintRequest::Written(written)).await;
    }

    async fn send(&mut self, text: String) -> Result<(), NotSent> {
        // The room for bytes stalls like the queue: a terminal that is slow all the time delays the caller once.
        if self.requests.is_stalled() && self.room.available_permits() < OUTPUT_WAITING_BYTES_MAX as usize / 2
        {
            return Err(NotSent::Full);
        }
        // A text that is longer than all room takes all of it: it waits alone instead of for ever.
        let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX).min(OUTPUT_WAITING_BYTES_MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes);
        // The semaphore is never closed, so `ok()` drops no error.
        self.requests.send_with(async { PrintRequest::Text(text, room.await.ok()) }).await
    }

    fn notice(&self) -> String {
        match (self.dropped, self.elsewhere) {
            (0, _) => String::new(),
            (dropped, elsewhere) => {
                format!(
                    "(roadshow) {dropped} lines were not shown: the terminal did not read in time{elsewhere}\n"
                )
            }
        }
    }
}

fn print_all(mut requests: mpsc::Receiver<PrintRequest>, write: impl Fn(&str) -> io::Result<()>) {
    while let Some(request) = requests.blocking_recv() {
        match request {
            // The job goes on without a terminal.
            PrintRequest::Text(text, _room) => drop(write(&text)),
            // The receiver may have given up by its timeout.
            PrintRequest::Written(written) => drop(written.send(())),
        }
    }
}

/// Writes all bytes, also to a terminal in non-blocking mode.
fn write_all(mut to: impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Non-blocking mode belongs to the open terminal, which this process shares with others. One of them
            // may have set it.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::park_timeout(FULL_PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::cluster::protocol::Stream;

    /// Terminal whose requests the test takes itself.
    fn terminal(room_timeout: Duration) -> (Terminal, mpsc::Receiver<PrintRequest>) {
        let (requests, printed) = mpsc::channel(2);
        (Terminal::new(BoundedSender::new(requests, Some(room_timeout)), "; see the logs"), printed)
    }

    async fn print(terminal: &mut Terminal, lines: &[&str]) {
        let shown = |line: &&str| OutputLine { stream: Stream::Out, line: (*line).to_owned() };
        terminal.print(&mut lines.iter().map(shown).collect()).await;
    }

    fn text(request: PrintRequest) -> String {
        match request {
            PrintRequest::Text(text, _) => text,
            PrintRequest::Written(_) => "written".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unread_lines_are_counted_and_reported() {
        let (mut terminal, mut printed) = terminal(Duration::from_secs(1));
        for lines in [["1", "2"], ["3", "4"], ["5", "6"], ["7", "8"]] {
            print(&mut terminal, &lines).await;
        }
        assert_eq!(text(printed.recv().await.unwrap()), "1\n2\n");
        print(&mut terminal, &["9"]).await;
        assert_eq!(text(printed.recv().await.unwrap()), "3\n4\n");
        let notice = "(roadshow) 4 lines were not shown: the terminal did not read in time; see the logs\n";
        assert_eq!(text(printed.recv().await.unwrap()), format!("{notice}9\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_lost_lines_are_reported_before_the_end() {
        let (mut terminal, mut printed) = terminal(Duration::from_secs(1));
        for lines in [["1"], ["2"], ["3"]] {
            print(&mut terminal, &lines).await;
        }
        let taking = async {
            let mut all = Vec::new();
            for _ in 0..4 {
                all.push(text(printed.recv().await.unwrap()));
            }
            all
        };
        let (all, ()) = tokio::join!(taking, terminal.notify_written(oneshot::channel().0));
        assert_eq!(all[..2], ["1\n", "2\n"]);
        assert!(all[2].starts_with("(roadshow) 1 lines were not shown"), "{all:?}");
        assert_eq!(all[3], "written");
    }

    #[tokio::test(start_paused = true)]
    async fn queued_bytes_are_bounded_and_a_longer_line_waits_alone() {
        let (requests, mut printed) = mpsc::channel(TERMINAL_QUEUE_MAX);
        let mut terminal = Terminal::new(BoundedSender::new(requests, Some(Duration::from_secs(1))), "");
        let line = "x".repeat(1 << 20);
        for _ in 0..10 {
            print(&mut terminal, &[&line]).await;
        }
        let mut waiting = Vec::new();
        while let Ok(request) = printed.try_recv() {
            waiting.push(text(request).len());
        }
        // Each has its newline, so four do not fit.
        assert_eq!(waiting, [line.len() + 1; 3]);
        assert_eq!(terminal.dropped, 7);

        let longer = "x".repeat(5 << 20);
        print(&mut terminal, &[&longer]).await;
        assert!(text(printed.try_recv().unwrap()).ends_with(&format!("in time\n{longer}\n")));
        print(&mut terminal, &["next"]).await;
        assert_eq!(text(printed.try_recv().unwrap()), "next\n");
    }

    #[test]
    fn a_closed_terminal_blocks_no_flush() {
        let (to, requests) = mpsc::channel(2);
        let (written, notified) = oneshot::channel();
        to.try_send(PrintRequest::Text("dropped\n".to_owned(), None)).unwrap();
        to.try_send(PrintRequest::Written(written)).unwrap();
        drop(to);
        print_all(requests, |_| Err(ErrorKind::BrokenPipe.into()));
        notified.blocking_recv().unwrap();
    }

    #[test]
    fn a_non_blocking_terminal_gets_all_bytes() {
        struct NonBlocking(std::sync::mpsc::SyncSender<u8>, bool);
        impl Write for NonBlocking {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 = !self.1;
                if self.1 {
                    return Err(ErrorKind::WouldBlock.into());
                }
                self.0.send(bytes[0]).unwrap();
                Ok(1)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (to, taken) = sync_channel(8);
        write_all(NonBlocking(to, false), b"abc").unwrap();
        assert_eq!(taken.iter().collect::<Vec<_>>(), b"abc");
    }
}
