//! Log of a daemon, which rotates when it reaches its size limit, like the logs of workers.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::cluster::output::file::LogWriter;
use crate::config::LOG_FILE_BYTES_MAX;
use crate::observe;

/// Starts the logging of this process, as [`observe::log::init`] does. If standard error is `dir/file`, that file is
/// rotated at its size limit, and standard error is redirected to the next one.
pub(crate) fn init(dir: &Path, file: &str) {
    if !is_stderr(&dir.join(file)) {
        return observe::log::init();
    }
    let redirect = |file: &File| {
        // On failure only the log events move on: other output, such as panics, stays in the old file.
        let _ = rustix::stdio::dup2_stderr(file);
    };
    let mut log = DaemonLog {
        dir: dir.to_owned(),
        file: file.to_owned(),
        size_max: LOG_FILE_BYTES_MAX,
        log: None,
        redirect,
    };
    // The first event may be that the process is out of file descriptors. After a failure here it opens the file.
    log.log = log.open().ok();
    let log = Mutex::new(log);
    observe::log::init_with(move |event| log.lock().unwrap_or_else(PoisonError::into_inner).write(event));
}

fn is_stderr(path: &Path) -> bool {
    let (Ok(file), Ok(stderr)) = (std::fs::metadata(path), rustix::fs::fstat(io::stderr())) else {
        return false;
    };
    // By inode: the command has opened the file, and this process knows only its descriptor.
    (file.dev(), file.ino()) == (stderr.st_dev, stderr.st_ino)
}

/// Log file, and the action to take when a new file is started.
struct DaemonLog<T> {
    dir: PathBuf,
    file: String,
    size_max: u64,
    /// `None` after a failure.
    log: Option<LogWriter>,
    redirect: T,
}

impl<T: Fn(&File)> DaemonLog<T> {
    fn open(&self) -> io::Result<LogWriter> {
        let log = LogWriter::open(&self.dir, &self.file, self.size_max)?;
        log.file().into_iter().for_each(&self.redirect);
        Ok(log)
    }

    fn write(&mut self, event: &[u8]) -> io::Result<()> {
        let mut log = match self.log.take() {
            Some(log) => log,
            // The last attempt may have rotated the file without creating the next.
            None => self.open()?,
        };
        // The writer rotates within `append`, and counts its rotations.
        let before = log.count();
        // An error drops the writer, so the next event opens the file again: the disk may have space by then.
        log.append(event)?;
        if log.count() != before {
            log.file().into_iter().for_each(&self.redirect);
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
    fn daemon_log_is_rotated_and_standard_error_follows() {
        let scratch = TestDir::new();
        fs::write(scratch.join("head.log"), "of an earlier run\n").unwrap();
        let redirects = Cell::new(0);
        let redirect = |file: &File| {
            assert_eq!(file.metadata().unwrap().ino(), fs::metadata(scratch.join("head.log")).unwrap().ino());
            redirects.set(redirects.get() + 1);
        };
        let (dir, file) = (scratch.path().to_owned(), "head.log".to_owned());
        let mut log = DaemonLog { dir, file, size_max: 20, log: None, redirect };
        for event in ["one\n", "seventeen bytes!\n", "three\n"] {
            log.write(event.as_bytes()).unwrap();
        }
        assert_eq!(redirects.get(), 4);
        let read = |file| fs::read_to_string(scratch.join(file)).unwrap();
        assert_eq!(
            (read("head.log.1"), read("head.log")),
            ("of an earlier run\n".to_owned(), "three\n".to_owned())
        );
    }

    #[test]
    fn failed_write_is_retried_with_the_next_event() {
        let scratch = TestDir::new();
        std::os::unix::fs::symlink("/dev/full", scratch.join("head.log")).unwrap();
        let (dir, file) = (scratch.path().to_owned(), "head.log".to_owned());
        let mut log = DaemonLog { dir, file, size_max: 20, log: None, redirect: |_: &File| {} };
        log.write(b"one\n").unwrap_err();
        fs::remove_file(scratch.join("head.log")).unwrap();
        log.write(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(scratch.join("head.log")).unwrap(), "two\n");
    }
}
