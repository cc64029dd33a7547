//! Reader of the logs in a directory: lists them, reads them in parts, and removes old ones. All methods block.

mod part;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::SystemTime;

use rustix::fs::OFlags;
use thiserror::Error;

use crate::cluster::admin::{LogFile, LogFrom};
use crate::cluster::output::LogName;
use crate::cluster::output::file::rotated_path;
use crate::cluster::output::name::{is_log, part_of};
pub(crate) use part::LogPart;
use part::{Cursor, LogPiece, last_lines, part};

/// Number of directory scans before a log that is rotated during each of them is read as it is.
const SCAN_RETRIES_MAX: usize = 10;

/// Logs of one directory.
#[derive(Clone, Debug)]
pub(crate) struct LogReader {
    dir: PathBuf,
}

/// Reason that a log cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum LogError {
    /// The log does not exist.
    #[error("no log {file:?} on this node; `roadshow logs` lists the logs")]
    Unknown {
        /// Requested name.
        file: String,
    },
    /// The operating system reports an error.
    #[error("cannot read {path:?}: {error}")]
    Read {
        /// Path of the log, or of the directory.
        path: PathBuf,
        /// Error of the operating system.
        error: io::Error,
    },
}

impl LogReader {
    /// Creates a reader of the logs in `dir`.
    pub(crate) fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Lists at most `count_max` logs behind a name, in the order of names, each with the size of all its files. The
    /// flag is true if more follow.
    ///
    /// # Errors
    ///
    /// [`LogError::Read`] if the directory cannot be read.
    pub(crate) fn list(
        &self,
        after: Option<&str>,
        count_max: usize,
    ) -> Result<(Vec<LogFile>, bool), LogError> {
        let listed = |(file, found): (String, LogEntry)| {
            let name = LogName::of_file(&file);
            let (worker, job) = (name.and_then(LogName::worker), name.map(LogName::job));
            LogFile { file, worker, job, size: found.size }
        };
        let found = self.find()?.into_iter();
        let mut behind = found.filter(|(file, _)| after.is_none_or(|after| file.as_str() > after));
        let page = behind.by_ref().take(count_max).map(listed).collect();
        Ok((page, behind.next().is_some()))
    }

    /// Reads a part of a log. [`LogFrom::Tail`] starts the given number of lines before the end. If these lines exceed
    /// one part, the next part continues behind it.
    ///
    /// # Errors
    ///
    /// [`LogError::Unknown`] if there is no log of that name, [`LogError::Read`] if it cannot be read.
    pub(crate) fn read(&self, file: &str, from: LogFrom) -> Result<LogPart, LogError> {
        // The name comes from a request. Without this check `../` would lead out of the directory.
        if !is_log(file) {
            return Err(LogError::Unknown { file: file.to_owned() });
        }
        let failed = |error| LogError::Read { path: self.dir.join(file), error };
        let files = self.files(file).map_err(failed)?;
        if files.is_empty() {
            return Err(LogError::Unknown { file: file.to_owned() });
        }
        let cursor = match from {
            LogFrom::Tail(lines) => last_lines(&files, lines).map_err(failed)?,
            LogFrom::Offset(offset) => Cursor::unpack(offset),
        };
        part(&files, cursor).map_err(failed)
    }

    /// Removes logs of ended processes, the least recently written first, until the remaining ones are within both
    /// limits.
    ///
    /// # Errors
    ///
    /// [`LogError::Read`] if the directory cannot be read, or a file cannot be removed.
    pub(crate) fn trim(
        &self,
        bytes_max: u64,
        files_max: usize,
        is_running: impl Fn(LogName) -> bool,
    ) -> Result<(), LogError> {
        // The logs of daemons have no `LogName`, so they are never removed here.
        let has_ended =
            |(file, _): &(String, LogEntry)| LogName::of_file(file).is_some_and(|name| !is_running(name));
        let mut ended: Vec<_> = self.find()?.into_iter().filter(has_ended).collect();
        // Oldest first: the log of a process that has just ended is the one that is read.
        ended.sort_by_key(|(_, found)| found.written);
        let mut left: u64 = ended.iter().map(|(_, found)| found.size).sum();
        let mut files: usize = ended.iter().map(|(_, found)| found.paths.len()).sum();
        for (_, found) in ended {
            if left <= bytes_max && files <= files_max {
                break;
            }
            left -= found.size;
            files -= found.paths.len();
            for path in found.paths {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(LogError::Read { path, error });
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn find(&self) -> Result<BTreeMap<String, LogEntry>, LogError> {
        let mut logs: BTreeMap<String, LogEntry> = BTreeMap::new();
        let failed = |error| LogError::Read { path: self.dir.clone(), error };
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some((log, _)) = name.to_str().and_then(part_of) else { continue };
            let metadata = match entry.metadata() {
                Ok(metadata) if metadata.is_file() => metadata,
                // Rotated or removed since the directory was read, or not a file.
                _ => continue,
            };
            let found = logs.entry(log.to_owned()).or_default();
            found.size += metadata.len();
            found.written = found.written.max(metadata.modified().ok());
            found.paths.push(entry.path());
        }
        Ok(logs)
    }

    /// Opens the files of a log in order.
    fn files(&self, log: &str) -> io::Result<Vec<LogPiece>> {
        let path = self.dir.join(log);
        let mut scans = 0;
        loop {
            scans += 1;
            // The writer may rotate the log at any moment. The newest file is opened first, and its inode tells afterwards
            // if that has happened.
            let newest = open(&path)?;
            let mut numbers = Vec::new();
            for entry in fs::read_dir(&self.dir)? {
                let name = entry?.file_name();
                if let Some((of, Some(number))) = name.to_str().and_then(part_of)
                    && of == log
                {
                    numbers.push(number);
                }
            }
            numbers.sort_unstable();
            let last = numbers.last().copied().unwrap_or(0);
            let mut files = Vec::with_capacity(numbers.len() + 1);
            for number in numbers {
                let file = open(&rotated_path(&path, number))?;
                files.extend(file.map(|file| LogPiece::new(number - 1, file)).transpose()?);
            }
            files.extend(newest.map(|file| LogPiece::new(last, file)).transpose()?);
            // If the newest file was rotated after it was opened, it appears twice or has a wrong number.
            let is_still = open(&path)?.map(|file| file.metadata()).transpose()?.map(|now| now.ino());
            let is_newest = files.last().is_none_or(|piece| Some(piece.inode) == is_still);
            if is_newest || scans == SCAN_RETRIES_MAX {
                return Ok(files);
            }
        }
    }
}

/// Log in the directory, with all its files.
#[derive(Debug, Default)]
struct LogEntry {
    size: u64,
    written: Option<SystemTime>,
    paths: Vec<PathBuf>,
}

/// Opens a regular file, if it exists. It follows no link and does not wait for the other end of a pipe, since a file
/// in the directory may not be what its name says.
fn open(path: &PathBuf) -> io::Result<Option<File>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path) {
        Ok(file) => Ok(file.metadata()?.is_file().then_some(file)),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, symlink};
    use std::time::Duration;

    use crate::property_tests;
    use proptest::prelude::*;

    use super::part::{BYTE_BITS, TRUNCATED_NOTICE};
    use super::*;
    use crate::cluster::model::{JobId, WorkerId};
    use crate::cluster::output::file::LogWriter;
    use crate::cluster::protocol::Stream;
    use crate::cluster::test_dir::TestDir;
    use crate::config::LOG_PART_BYTES_MAX;

    fn reader(scratch: &TestDir) -> LogReader {
        LogReader::new(scratch.path())
    }

    fn tail(scratch: &TestDir, lines: u64) -> LogPart {
        reader(scratch).read("a.out", LogFrom::Tail(lines)).unwrap()
    }

    fn at(scratch: &TestDir, offset: u64) -> LogPart {
        reader(scratch).read("a.out", LogFrom::Offset(offset)).unwrap()
    }

    /// Joins all parts from one on, and returns the text and its end.
    fn rest(scratch: &TestDir, mut part: LogPart) -> LogPart {
        let mut text = String::new();
        while !part.text.is_empty() {
            text += &part.text;
            part = at(scratch, part.offset);
        }
        LogPart { text, offset: part.offset }
    }

    #[test]
    fn logs_are_listed_with_their_worker_and_job() {
        let scratch = TestDir::new();
        let name = LogName::Worker { worker: WorkerId(3), job: JobId(2), pid: 1 };
        let file = name.file(Stream::Out);
        fs::write(scratch.join(&file), "123").unwrap();
        fs::write(scratch.join(&format!("{file}.1")), "4567").unwrap();
        fs::write(scratch.join("agent.log"), "").unwrap();
        fs::write(scratch.join("secret.key"), "x").unwrap();
        fs::create_dir(scratch.join("dir.log")).unwrap();
        symlink("secret.key", scratch.join("link.log")).unwrap();
        let agent = LogFile { file: "agent.log".to_owned(), worker: None, job: None, size: 0 };
        let worker = LogFile { file, worker: Some(WorkerId(3)), job: Some(JobId(2)), size: 7 };
        let list = |after, count_max| reader(&scratch).list(after, count_max).unwrap();
        assert_eq!(list(None, 2), (vec![agent.clone(), worker.clone()], false));
        assert_eq!(list(None, 1), (vec![agent], true));
        assert_eq!(list(Some("agent.log"), 1), (vec![worker], false));
        assert_eq!(list(Some("x"), 1), (Vec::new(), false));
    }

    #[test]
    fn only_logs_of_the_directory_can_be_read() {
        let scratch = TestDir::new();
        let dir = scratch.join("logs");
        fs::create_dir(&dir).unwrap();
        fs::write(scratch.join("above.log"), "secret").unwrap();
        fs::write(dir.join("secret.key"), "secret").unwrap();
        symlink(scratch.join("above.log"), dir.join("link.log")).unwrap();
        fs::create_dir(dir.join("dir.log")).unwrap();
        let absolute = scratch.join("above.log");
        let names =
            ["../above.log", absolute.to_str().unwrap(), "secret.key", "link.log", "dir.log", "", "no.log"];
        for name in names {
            let result = LogReader::new(&dir).read(name, LogFrom::Offset(0));
            assert!(matches!(result, Err(LogError::Unknown { .. })), "{name}: {result:?}");
        }
    }

    #[test]
    fn tail_finds_the_last_lines() {
        let scratch = TestDir::new();
        fs::write(scratch.join("a.out"), "one\ntwo\nthree\n").unwrap();
        for (lines, text) in [(0, ""), (1, "three\n"), (2, "two\nthree\n"), (3, "one\ntwo\nthree\n")] {
            assert_eq!(tail(&scratch, lines), LogPart { text: text.to_owned(), offset: 14 });
        }
        assert_eq!(tail(&scratch, u64::MAX).text, "one\ntwo\nthree\n");
        fs::write(scratch.join("a.out"), "one\n\n\nbegun").unwrap();
        for (lines, text) in [(1, "begun"), (2, "\nbegun"), (3, "\n\nbegun")] {
            assert_eq!(tail(&scratch, lines).text, text);
        }
        fs::write(scratch.join("a.out"), "").unwrap();
        assert_eq!(tail(&scratch, 5), LogPart { text: String::new(), offset: 0 });
    }

    #[test]
    fn tail_of_a_large_log_reads_only_its_end() {
        let scratch = TestDir::new();
        // A sparse file, which would take long to read from its start.
        let file = File::create(scratch.join("a.out")).unwrap();
        file.write_all_at(b"\nlast but one\nlast\n", 1 << 38).unwrap();
        assert_eq!(tail(&scratch, 2).text, "last but one\nlast\n");
    }

    #[test]
    fn follower_gets_appended_text() {
        let scratch = TestDir::new();
        let mut log = LogWriter::new(scratch.path(), "a.out", 1000);
        log.append(b"one\ntw").unwrap();
        let part = tail(&scratch, 10);
        assert_eq!(part, LogPart { text: "one\ntw".to_owned(), offset: 6 });
        log.append(b"o\n\xe2\x82").unwrap();
        let part = at(&scratch, part.offset);
        assert_eq!(part, LogPart { text: "o\n".to_owned(), offset: 8 });
        log.append(b"\xac").unwrap();
        assert_eq!(at(&scratch, part.offset).text, "\u{20ac}");
    }

    #[test]
    fn rotated_log_is_read_and_followed_as_one_text() {
        let scratch = TestDir::new();
        let mut log = LogWriter::new(scratch.path(), "a.out", 10);
        log.append(b"1234\n").unwrap();
        let part = tail(&scratch, 10);
        log.append(b"5678\nabcd\nefgh\nijkl\n").unwrap();
        assert_eq!(rest(&scratch, at(&scratch, part.offset)).text, "5678\nabcd\nefgh\nijkl\n");
        assert_eq!(rest(&scratch, tail(&scratch, 3)).text, "abcd\nefgh\nijkl\n");
        assert_eq!(rest(&scratch, tail(&scratch, 4)).text, "5678\nabcd\nefgh\nijkl\n");
        assert_eq!(rest(&scratch, at(&scratch, 0)).text, "1234\n5678\nabcd\nefgh\nijkl\n");

        let end = rest(&scratch, tail(&scratch, 1)).offset;
        log.append(b"next\n").unwrap();
        assert_eq!(rest(&scratch, at(&scratch, end)).text, "next\n");
    }

    #[test]
    fn follower_that_is_too_late_gets_a_notice() {
        let scratch = TestDir::new();
        let mut log = LogWriter::new(scratch.path(), "a.out", 5);
        for line in 0..9 {
            log.append(format!("line{line}\n").as_bytes()).unwrap();
        }
        let text = rest(&scratch, at(&scratch, 2)).text;
        assert!(text.starts_with(TRUNCATED_NOTICE) && text.ends_with("line7\nline8\n"), "{text}");
    }

    #[test]
    fn offset_that_does_not_exist_is_the_end() {
        let scratch = TestDir::new();
        fs::write(scratch.join("a.out"), "123\n").unwrap();
        for offset in [5, 1 << BYTE_BITS, u64::MAX] {
            assert_eq!(at(&scratch, offset), LogPart { text: String::new(), offset: 4 }, "{offset}");
        }
    }

    #[test]
    fn part_is_bounded_and_ends_with_a_line() {
        let scratch = TestDir::new();
        let line = format!("{}\n", "x".repeat(999));
        fs::write(scratch.join("a.out"), line.repeat(3000)).unwrap();
        let part = at(&scratch, 0);
        assert_eq!(part.text.len(), LOG_PART_BYTES_MAX / 1000 * 1000);
        assert_eq!(rest(&scratch, part).text.len(), 3_000_000);
        fs::write(scratch.join("a.out"), vec![0xff; LOG_PART_BYTES_MAX + 5]).unwrap();
        let part = at(&scratch, 0);
        assert!(part.text.len() <= LOG_PART_BYTES_MAX && !part.text.is_empty());
        assert_eq!(rest(&scratch, part).text.chars().count(), LOG_PART_BYTES_MAX + 5);
    }

    #[test]
    fn oldest_logs_of_ended_processes_are_removed_first() {
        let scratch = TestDir::new();
        let name = |pid| LogName::Driver { job: JobId(1), pid };
        for pid in 1..=4 {
            let path = scratch.join(&name(pid).file(Stream::Out));
            fs::write(&path, [b'x'; 100]).unwrap();
            let written = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(pid));
            File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
        }
        fs::write(scratch.join("agent.log"), [b'x'; 100]).unwrap();
        let left = |bytes_max, files_max, expected: &[u32]| {
            reader(&scratch).trim(bytes_max, files_max, |process| process == name(1)).unwrap();
            let left = reader(&scratch).list(None, 10).unwrap().0.into_iter().map(|log| log.file);
            let expected = expected.iter().map(|pid| name(*pid).file(Stream::Out));
            assert!(left.eq(std::iter::once("agent.log".to_owned()).chain(expected)));
        };
        left(200, 10, &[1, 3, 4]);
        // The limit of files applies independently of their size.
        fs::write(scratch.join(&format!("{}.1", name(3).file(Stream::Out))), "").unwrap();
        left(200, 3, &[1, 3, 4]);
        left(200, 2, &[1, 3]);
    }

    proptest! {
        #![proptest_config(property_tests::cases(64))]

        /// For any sequence of writes: a tail returns the last lines, and a follower gets every byte.
        #[test]
        fn tails_and_followers_see_all_written_text(
            pieces in prop::collection::vec("[a-c\n]{0,12}", 0..12),
            lines in 0..8u64,
        ) {
            let scratch = TestDir::new();
            let mut log = LogWriter::open(scratch.path(), "a.out", 50).unwrap();
            let (mut written, mut followed, mut offset) = (String::new(), String::new(), 0);
            for piece in pieces {
                log.append(piece.as_bytes()).unwrap();
                written += &piece;
                let part = rest(&scratch, at(&scratch, offset));
                followed += &part.text;
                offset = part.offset;
            }
            prop_assert_eq!(&followed, &written);
            let count = written.lines().count() as u64;
            let expected: String = written.split_inclusive('\n').skip(count.saturating_sub(lines) as usize).collect();
            prop_assert_eq!(rest(&scratch, tail(&scratch, lines)).text, expected);
        }
    }
}
