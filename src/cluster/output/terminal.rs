//! The driver's terminal, which may not read: lines wait for it apart from everything else.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::OutputLine;
use super::bounded_sender::{BoundedSender, Refused};
use crate::config::{OUTPUT_WAITING_BYTES_MAX, TERMINAL_QUEUE_MAX};

/// How long a terminal that takes nothing at this moment, and does not wait, is left alone.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// Prints what workers write to standard error, whatever stream it came from: standard output is the
/// program's own. What a terminal that does not read has no room for is counted, and told later.
#[derive(Debug)]
pub(super) struct Terminal {
    pieces: BoundedSender<Piece>,
    /// The bytes for which there is room.
    room: Arc<Semaphore>,
    lost: usize,
    /// Where lines are that were not shown, as a part of a sentence.
    elsewhere: &'static str,
}

#[derive(Debug)]
enum Piece {
    /// Text, and the room that it takes until it is written.
    Text(String, Option<OwnedSemaphorePermit>),
    /// All pieces before it are written.
    Written(oneshot::Sender<()>),
}

impl Terminal {
    /// Starts the thread that prints. Lines wait for `patience` when the terminal takes none.
    pub(super) fn start(patience: Duration, elsewhere: &'static str) -> io::Result<Self> {
        let (pieces, printed) = mpsc::channel(TERMINAL_QUEUE_MAX);
        thread::Builder::new()
            .name("roadshow-print".to_owned())
            .spawn(move || print_all(printed, |text| write_whole(io::stderr(), text.as_bytes())))?;
        Ok(Self::new(BoundedSender::new(pieces, Some(patience)), elsewhere))
    }

    fn new(pieces: BoundedSender<Piece>, elsewhere: &'static str) -> Self {
        let room = Arc::new(Semaphore::new(OUTPUT_WAITING_BYTES_MAX as usize));
        Self { pieces, room, lost: 0, elsewhere }
    }

    /// Takes lines to be printed.
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
        match self.put(text).await {
            Ok(()) => self.lost = 0,
            Err(Refused::Full | Refused::Closed) => self.lost += count,
        }
    }

    /// Has `written` told when all lines are written, if the terminal takes them.
    pub(super) async fn tell_written(&mut self, written: oneshot::Sender<()>) {
        self.pieces.reset_stall();
        let notice = self.notice();
        if !notice.is_empty() && self.put(notice).await.is_ok() {
            self.lost = 0;
        }
        // Where there is no room, nothing is told.
        let _ = self.pieces.send(Piece::Written(written)).await;
    }

    async fn put(&mut self, text: String) -> Result<(), Refused> {
        // As with pieces: a terminal that is slow all the time holds nobody up each time.
        if self.pieces.is_stalled() && self.room.available_permits() < OUTPUT_WAITING_BYTES_MAX as usize / 2 {
            return Err(Refused::Full);
        }
        let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX).min(OUTPUT_WAITING_BYTES_MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes);
        // The semaphore is never closed.
        self.pieces.put_with(async { Piece::Text(text, room.await.ok()) }).await
    }

    fn notice(&self) -> String {
        match (self.lost, self.elsewhere) {
            (0, _) => String::new(),
            (lost, elsewhere) => {
                format!("(roadshow) {lost} lines were not shown, as nobody read them in time{elsewhere}\n")
            }
        }
    }
}

fn print_all(mut pieces: mpsc::Receiver<Piece>, write: impl Fn(&str) -> io::Result<()>) {
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            // A terminal that is gone is no reason to end a job.
            Piece::Text(text, _room) => drop(write(&text)),
            // It may have been waited for long enough.
            Piece::Written(written) => drop(written.send(())),
        }
    }
}

/// Writes all bytes, also to what does not wait until it takes more.
fn write_whole(mut to: impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process may have set the terminal so, which they share.
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

    /// A terminal that takes a piece each time that it is told to.
    fn terminal(patience: Duration) -> (Terminal, mpsc::Receiver<Piece>) {
        let (pieces, printed) = mpsc::channel(2);
        (Terminal::new(BoundedSender::new(pieces, Some(patience)), "; see the logs"), printed)
    }

    async fn print(terminal: &mut Terminal, lines: &[&str]) {
        let shown = |line: &&str| OutputLine { stream: Stream::Out, line: (*line).to_owned() };
        terminal.print(&mut lines.iter().map(shown).collect()).await;
    }

    fn text(piece: Piece) -> String {
        match piece {
            Piece::Text(text, _) => text,
            Piece::Written(_) => "written".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lines_that_nobody_reads_are_counted_and_told() {
        let (mut terminal, mut printed) = terminal(Duration::from_secs(1));
        for lines in [["1", "2"], ["3", "4"], ["5", "6"], ["7", "8"]] {
            print(&mut terminal, &lines).await;
        }
        assert_eq!(text(printed.recv().await.unwrap()), "1\n2\n");
        print(&mut terminal, &["9"]).await;
        assert_eq!(text(printed.recv().await.unwrap()), "3\n4\n");
        let notice = "(roadshow) 4 lines were not shown, as nobody read them in time; see the logs\n";
        assert_eq!(text(printed.recv().await.unwrap()), format!("{notice}9\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn lines_that_were_lost_last_are_told_before_the_end() {
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
        let (all, ()) = tokio::join!(taking, terminal.tell_written(oneshot::channel().0));
        assert_eq!(all[..2], ["1\n", "2\n"]);
        assert!(all[2].starts_with("(roadshow) 1 lines were not shown"), "{all:?}");
        assert_eq!(all[3], "written");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_bytes_wait_than_the_bound_says_and_a_longer_line_waits_alone() {
        let (pieces, mut printed) = mpsc::channel(TERMINAL_QUEUE_MAX);
        let mut terminal = Terminal::new(BoundedSender::new(pieces, Some(Duration::from_secs(1))), "");
        let line = "x".repeat(1 << 20);
        for _ in 0..10 {
            print(&mut terminal, &[&line]).await;
        }
        let mut waiting = Vec::new();
        while let Ok(piece) = printed.try_recv() {
            waiting.push(text(piece).len());
        }
        // Each has its end, so four do not fit.
        assert_eq!(waiting, [line.len() + 1; 3]);
        assert_eq!(terminal.lost, 7);

        let longer = "x".repeat(5 << 20);
        print(&mut terminal, &[&longer]).await;
        assert!(text(printed.try_recv().unwrap()).ends_with(&format!("in time\n{longer}\n")));
        print(&mut terminal, &["next"]).await;
        assert_eq!(text(printed.try_recv().unwrap()), "next\n");
    }

    #[test]
    fn a_terminal_that_is_gone_keeps_nobody_waiting() {
        let (to, pieces) = mpsc::channel(2);
        let (written, told) = oneshot::channel();
        to.try_send(Piece::Text("lost\n".to_owned(), None)).unwrap();
        to.try_send(Piece::Written(written)).unwrap();
        drop(to);
        print_all(pieces, |_| Err(ErrorKind::BrokenPipe.into()));
        told.blocking_recv().unwrap();
    }

    #[test]
    fn what_does_not_wait_is_written_to_until_it_has_all() {
        struct Reluctant(std::sync::mpsc::SyncSender<u8>, bool);
        impl Write for Reluctant {
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
        write_whole(Reluctant(to, false), b"abc").unwrap();
        assert_eq!(taken.iter().collect::<Vec<_>>(), b"abc");
    }
}
