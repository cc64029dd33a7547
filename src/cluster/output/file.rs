//! A log as it is written: raw bytes, put aside when it gets long. It blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::name::part_of;
use crate::config::LOG_FILES_KEPT;

/// A log that is written.
///
/// A write that fails, as on a full disk, loses what was to be written and nothing else: the next one is
/// tried again, behind a line that says how much is missing.
#[derive(Debug)]
pub(in crate::cluster) struct LogWriter {
    path: PathBuf,
    /// None before the first byte, and after a failed write until the next.
    file: Option<File>,
    size: u64,
    size_max: u64,
    /// How many files of this log were put aside.
    rotate: u64,
    ends_line: bool,
    lost: Lost,
}

/// What could not be written since it was last said.
#[derive(Debug, Default)]
struct Lost {
    bytes: u64,
    /// Ends of lines among the bytes.
    lines: u64,
    why: String,
}

impl LogWriter {
    /// The log `dir/file`, which is continued if it is there, and else made with its first byte.
    pub(in crate::cluster) fn new(dir: &Path, file: &str, size_max: u64) -> Self {
        Self {
            path: dir.join(file),
            file: None,
            size: 0,
            size_max,
            rotate: 0,
            ends_line: true,
            lost: Lost::default(),
        }
    }

    /// The same, made or opened now.
    pub(in crate::cluster) fn open(dir: &Path, file: &str, size_max: u64) -> io::Result<Self> {
        let mut log = Self::new(dir, file, size_max);
        log.reopen()?;
        Ok(log)
    }

    /// Adds bytes. Files begin with a line's start, unless a line is longer than a file.
    ///
    /// # Errors
    ///
    /// Those of the operating system. What was not written is counted as lost.
    pub(in crate::cluster) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        let result = self.own_up().and_then(|()| self.append_all(&mut left));
        if let Err(error) = &result {
            self.lost.bytes += left.len() as u64;
            self.lost.lines += left.iter().filter(|byte| **byte == b'\n').count() as u64;
            self.lost.why = error.to_string();
            // How much it has now is looked up when it is opened again.
            self.file = None;
        }
        result
    }

    /// Says what is missing at the end, and removes a file in which nothing is.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    pub(in crate::cluster) fn finish(mut self) -> io::Result<()> {
        self.append(&[])?;
        let is_empty = fs::symlink_metadata(&self.path).is_ok_and(|it| it.is_file() && it.len() == 0);
        match is_empty && self.rotate == 0 {
            true => fs::remove_file(&self.path),
            false => Ok(()),
        }
    }

    /// The file that is written by now.
    pub(in crate::cluster) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// How many files of this log were put aside.
    pub(in crate::cluster) fn count(&self) -> u64 {
        self.rotate
    }

    /// Says how much is missing, if something is.
    fn own_up(&mut self) -> io::Result<()> {
        if self.lost.bytes == 0 {
            return Ok(());
        }
        self.opened()?;
        let Lost { bytes, lines, why } = &self.lost;
        let begin = if self.ends_line { "" } else { "\n" };
        let line = format!("{begin}... {bytes} bytes with {lines} ends of lines are missing here: {why}\n");
        self.append_all(&mut line.as_bytes())?;
        self.lost = Lost::default();
        Ok(())
    }

    /// Leaves in `bytes` what could not be written.
    fn append_all(&mut self, bytes: &mut &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.opened()?;
            let room = self.size_max.saturating_sub(self.size).min(bytes.len() as u64) as usize;
            let fits = match bytes[..room].iter().rposition(|&byte| byte == b'\n') {
                _ if room == bytes.len() => room,
                Some(newline) => newline + 1,
                None if self.size == 0 => room,
                None => 0,
            };
            let (mut now, later) = bytes.split_at(fits);
            let written = match &mut self.file {
                Some(file) => write_all(file, &mut now),
                None => Err(io::Error::from(io::ErrorKind::NotFound)),
            };
            let done = fits - now.len();
            self.size += done as u64;
            self.ends_line = bytes[..done].last().map_or(self.ends_line, |last| *last == b'\n');
            *bytes = &bytes[done..];
            written?;
            if !later.is_empty() {
                self.rotate()?;
            }
        }
        Ok(())
    }

    fn opened(&mut self) -> io::Result<()> {
        match self.file {
            Some(_) => Ok(()),
            None => self.reopen(),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.rotate = last_rotated(dir, &name)?;
        let file = append_to(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Gives the file a name for good, and begins another.
    fn rotate(&mut self) -> io::Result<()> {
        self.rotate += 1;
        fs::rename(&self.path, rotated_path(&self.path, self.rotate))?;
        if let Some(old) = self.rotate.checked_sub(LOG_FILES_KEPT).filter(|&old| old > 0) {
            // It is as good if it was removed already.
            let _ = fs::remove_file(rotated_path(&self.path, old));
        }
        self.file = Some(append_to(&self.path)?);
        self.size = 0;
        Ok(())
    }
}

/// Writes all; leaves in `bytes` what it could not. A full disk takes the first part of a write.
fn write_all(to: &mut impl Write, bytes: &mut &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(count) => *bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(in crate::cluster) fn rotated_path(path: &Path, number: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The largest number of a file of that log; 0 if none was put aside.
fn last_rotated(dir: &Path, log: &str) -> io::Result<u64> {
    let mut last = 0;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some((of, Some(number))) = name.to_str().and_then(part_of)
            && of == log
        {
            last = last.max(number);
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::cluster::test_dir::TestDir;

    fn texts(scratch: &TestDir) -> Vec<(String, String)> {
        let read = |entry: io::Result<fs::DirEntry>| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        };
        let mut texts: Vec<_> = fs::read_dir(scratch.path()).unwrap().map(read).collect();
        texts.sort();
        texts
    }

    #[track_caller]
    fn check(scratch: &TestDir, expected: &[(&str, &str)]) {
        let texts = texts(scratch);
        let texts: Vec<_> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_log_is_for_its_owner_and_holds_what_was_added() {
        let scratch = TestDir::new();
        let mut log = LogWriter::new(scratch.path(), "a.out", 1000);
        log.append(b"").unwrap();
        check(&scratch, &[]);
        log.append(b"one\nt").unwrap();
        log.append(b"wo\n").unwrap();
        check(&scratch, &[("a.out", "one\ntwo\n")]);
        assert_eq!(fs::metadata(scratch.join("a.out")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_long_log_is_put_aside_between_lines_and_the_last_few_files_are_kept() {
        let scratch = TestDir::new();
        let mut log = LogWriter::new(scratch.path(), "a.out", 10);
        log.append(b"1234\n5678\nabcd\n").unwrap();
        check(&scratch, &[("a.out", "abcd\n"), ("a.out.1", "1234\n5678\n")]);
        log.append(b"efghij\n").unwrap();
        check(&scratch, &[("a.out", "efghij\n"), ("a.out.1", "1234\n5678\n"), ("a.out.2", "abcd\n")]);
        log.append(b"klmnop\nqrstuv\n").unwrap();
        let expected =
            [("a.out", "qrstuv\n"), ("a.out.2", "abcd\n"), ("a.out.3", "efghij\n"), ("a.out.4", "klmnop\n")];
        check(&scratch, &expected);
        drop(log);
        let mut again = LogWriter::new(scratch.path(), "a.out", 10);
        again.append(b"wxyzab\n").unwrap();
        assert_eq!(texts(&scratch).last().unwrap(), &("a.out.5".to_owned(), "qrstuv\n".to_owned()));
    }

    #[test]
    fn a_line_longer_than_a_file_is_cut_up() {
        let scratch = TestDir::new();
        let mut log = LogWriter::new(scratch.path(), "a.out", 10);
        log.append(b"0123456789abcdefghijKLM\n").unwrap();
        check(&scratch, &[("a.out", "KLM\n"), ("a.out.1", "0123456789"), ("a.out.2", "abcdefghij")]);
    }

    #[test]
    fn a_log_goes_on_after_a_full_disk_and_says_once_what_is_missing() {
        let scratch = TestDir::new();
        let path = scratch.join("a.out");
        let mut log = LogWriter::new(scratch.path(), "a.out", 1000);
        log.append(b"one\nhalf").unwrap();
        fs::rename(&path, scratch.join("before")).unwrap();
        symlink("/dev/full", &path).unwrap();
        log.file = None;
        for _ in 0..2 {
            assert_eq!(log.append(b"two\nthree\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
        fs::rename(scratch.join("before"), &path).unwrap();
        log.append(b"four\n").unwrap();
        log.append(b"five\n").unwrap();
        log.finish().unwrap();
        let full = io::Error::from(rustix::io::Errno::NOSPC);
        let missing = format!("... 20 bytes with 4 ends of lines are missing here: {full}\n");
        check(&scratch, &[("a.out", &format!("one\nhalf\n{missing}four\nfive\n"))]);
    }

    #[test]
    fn what_is_missing_at_the_end_is_said_there() {
        let scratch = TestDir::new();
        symlink("/dev/full", scratch.join("a.out")).unwrap();
        let mut log = LogWriter::new(scratch.path(), "a.out", 1000);
        log.append(b"one\n").unwrap_err();
        fs::remove_file(scratch.join("a.out")).unwrap();
        log.finish().unwrap();
        let [(_, text)] = &texts(&scratch)[..] else { panic!("one file") };
        assert!(text.starts_with("... 4 bytes with 1 ends of lines are missing here: "), "{text}");
    }

    #[test]
    fn a_file_in_which_nothing_is_goes_with_its_process() {
        let scratch = TestDir::new();
        LogWriter::new(scratch.path(), "a.out", 1000).finish().unwrap();
        LogWriter::open(scratch.path(), "a.out", 1000).unwrap().finish().unwrap();
        check(&scratch, &[]);
    }

    /// A disk with room for some bytes.
    struct Small(Vec<u8>, usize);

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.1 - self.0.len() {
                0 => Err(io::ErrorKind::StorageFull.into()),
                room => self.0.write(&bytes[..bytes.len().min(room)]),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_took_is_not_missing() {
        let mut bytes = &b"one\ntwo\n"[..];
        let mut small = Small(Vec::new(), 5);
        assert_eq!(write_all(&mut small, &mut bytes).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!((bytes, &small.0[..]), (&b"wo\n"[..], &b"one\nt"[..]));
    }
}
