//! A daemon's own log, which is put aside when it gets long, as those of workers are.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::cluster::output::file::LogWriter;
use crate::config::LOG_FILE_BYTES_MAX;
use crate::observe;

/// Has this process log as [`observe::log::init`] does. If its standard error is `dir/file`, that is put
/// aside when it gets long, and the standard error goes on in the next one.
pub(crate) fn init(dir: &Path, file: &str) {
    if !is_stderr(&dir.join(file)) {
        return observe::log::init();
    }
    let turn = |file: &File| {
        // Where it fails, what is no event goes on in the old file.
        let _ = rustix::stdio::dup2_stderr(file);
    };
    let log = DaemonLog {
        dir: dir.to_owned(),
        file: file.to_owned(),
        size_max: LOG_FILE_BYTES_MAX,
        log: None,
        turn,
    };
    let log = Mutex::new(log);
    observe::log::init_with(move |event| log.lock().unwrap_or_else(PoisonError::into_inner).write(event));
}

fn is_stderr(path: &Path) -> bool {
    let (Ok(file), Ok(stderr)) = (std::fs::metadata(path), rustix::fs::fstat(io::stderr())) else {
        return false;
    };
    (file.dev(), file.ino()) == (stderr.st_dev, stderr.st_ino)
}

/// The log, and what is to be done when another file is begun.
struct DaemonLog<T> {
    dir: PathBuf,
    file: String,
    size_max: u64,
    /// None until something is written, and after that was not possible.
    log: Option<LogWriter>,
    turn: T,
}

impl<T: Fn(&File)> DaemonLog<T> {
    fn write(&mut self, event: &[u8]) -> io::Result<()> {
        let mut log = match self.log.take() {
            Some(log) => log,
            None => {
                // The last one may have been put aside without another.
                let log = LogWriter::open(&self.dir, &self.file, self.size_max)?;
                log.file().into_iter().for_each(&self.turn);
                log
            }
        };
        let before = log.count();
        // A disk that is full may have room again for the next event.
        log.append(event)?;
        if log.count() != before {
            log.file().into_iter().for_each(&self.turn);
        }
        self.log = Some(log);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use super::*;
    use crate::cluster::test_dir::TestDir;

    #[test]
    fn a_daemon_s_log_is_put_aside_and_the_standard_error_follows_it() {
        let scratch = TestDir::new();
        fs::write(scratch.join("head.log"), "of an earlier life\n").unwrap();
        let turned = Cell::new(0);
        let turn = |file: &File| {
            assert_eq!(file.metadata().unwrap().ino(), fs::metadata(scratch.join("head.log")).unwrap().ino());
            turned.set(turned.get() + 1);
        };
        let (dir, file) = (scratch.path().to_owned(), "head.log".to_owned());
        let mut log = DaemonLog { dir, file, size_max: 20, log: None, turn };
        for event in ["one\n", "seventeen bytes!\n", "three\n"] {
            log.write(event.as_bytes()).unwrap();
        }
        assert_eq!(turned.get(), 4);
        let read = |file| fs::read_to_string(scratch.join(file)).unwrap();
        assert_eq!(
            (read("head.log.1"), read("head.log")),
            ("of an earlier life\n".to_owned(), "three\n".to_owned())
        );
    }

    #[test]
    fn a_log_that_could_not_be_written_is_tried_again() {
        let scratch = TestDir::new();
        std::os::unix::fs::symlink("/dev/full", scratch.join("head.log")).unwrap();
        let (dir, file) = (scratch.path().to_owned(), "head.log".to_owned());
        let mut log = DaemonLog { dir, file, size_max: 20, log: None, turn: |_: &File| {} };
        log.write(b"one\n").unwrap_err();
        fs::remove_file(scratch.join("head.log")).unwrap();
        log.write(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(scratch.join("head.log")).unwrap(), "two\n");
    }
}
