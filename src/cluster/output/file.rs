//! Writer of a log file: raw bytes, rotated when the file gets long. It blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::name::part_of;
use crate::config::LOG_FILES_KEPT;

/// Log that is written.
///
/// A failed write, as on a full disk, loses its bytes and nothing else. The next write is tried again, after a line
/// that says how much is missing.
#[derive(Debug)]
pub(in crate::cluster) struct LogWriter {
    path: PathBuf,
    /// `None` before the first byte, and after a failed write until the next.
    file: Option<File>,
    size: u64,
    size_max: u64,
    /// Number of rotated files of this log, including deleted ones.
    rotated: u64,
    ends_line: bool,
    lost: Lost,
}

/// Bytes that could not be written since the last report.
#[derive(Debug, Default)]
struct Lost {
    bytes: u64,
    /// Newlines among the bytes.
    lines: u64,
    why: String,
}

impl LogWriter {
    /// Log `dir/file`. An existing one is continued; a new one is created with its first byte.
    pub(in crate::cluster) fn new(dir: &Path, file: &str, size_max: u64) -> Self {
        Self {
            path: dir.join(file),
            file: None,
            size: 0,
            size_max,
            rotated: 0,
            ends_line: true,
            lost: Lost::default(),
        }
    }

    /// Same as [`LogWriter::new`], created or opened now.
    pub(in crate::cluster) fn open(dir: &Path, file: &str, size_max: u64) -> io::Result<Self> {
        let mut log = Self::new(dir, file, size_max);
        log.reopen()?;
        Ok(log)
    }

    /// Appends bytes. A file begins at the start of a line, unless a line is longer than a file.
    ///
    /// # Errors
    ///
    /// The error of the operating system. The bytes that were not written count as lost.
    pub(in crate::cluster) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        let result = self.report_lost().and_then(|()| self.append_all(&mut left));
        if let Err(error) = &result {
            self.lost.bytes += left.len() as u64;
            self.lost.lines += left.iter().filter(|byte| **byte == b'\n').count() as u64;
            self.lost.why = error.to_string();
            // The size is read again when the file is reopened: a failed write may have written a part.
            self.file = None;
        }
        result
    }

    /// Reports what is missing at the end, and removes an empty file.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    pub(in crate::cluster) fn finish(mut self) -> io::Result<()> {
        self.append(&[])?;
        let is_empty = fs::symlink_metadata(&self.path).is_ok_and(|it| it.is_file() && it.len() == 0);
        match is_empty && self.rotated == 0 {
            true => fs::remove_file(&self.path),
            false => Ok(()),
        }
    }

    /// File that is being written.
    pub(in crate::cluster) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Number of rotated files of this log, including deleted ones.
    pub(in crate::cluster) fn count(&self) -> u64 {
        self.rotated
    }

    /// Writes a line that says how much is missing, if anything is.
    fn report_lost(&mut self) -> io::Result<()> {
        if self.lost.bytes == 0 {
            return Ok(());
        }
        self.opened()?;
        let Lost { bytes, lines, why } = &self.lost;
        let begin = if self.ends_line { "" } else { "\n" };
        let line = format!("{begin}... {bytes} bytes with {lines} newlines are missing here: {why}\n");
        self.append_all(&mut line.as_bytes())?;
        self.lost = Lost::default();
        Ok(())
    }

    /// Appends bytes and rotates at line ends; leaves in `bytes` what could not be written.
    fn append_all(&mut self, bytes: &mut &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.opened()?;
            let room = self.size_max.saturating_sub(self.size).min(bytes.len() as u64) as usize;
            // What fits is cut after its last newline. Only a line that is longer than a whole file is broken.
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
        // Numbers continue after those on the disk: a restarted process must not overwrite a rotated file.
        self.rotated = last_rotated(dir, &name)?;
        let file = append_to(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Renames the file to its final name, deletes the oldest, and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        self.rotated += 1;
        fs::rename(&self.path, rotated_path(&self.path, self.rotated))?;
        if let Some(old) = self.rotated.checked_sub(LOG_FILES_KEPT).filter(|&old| old > 0) {
            // It may have been deleted already.
            let _ = fs::remove_file(rotated_path(&self.path, old));
        }
        self.file = Some(append_to(&self.path)?);
        self.size = 0;
        Ok(())
    }
}

/// Writes all bytes; leaves in `bytes` what could not be written. A full disk may take a part of a write.
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
    // Output may contain secrets: only its user may read it.
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Largest number of a rotated file of a log; 0 if there is none.
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

    fn texts(dir: &TestDir) -> Vec<(String, String)> {
        let read = |entry: io::Result<fs::DirEntry>| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        };
        let mut texts: Vec<_> = fs::read_dir(dir.path()).unwrap().map(read).collect();
        texts.sort();
        texts
    }

    #[track_caller]
    fn check(dir: &TestDir, expected: &[(&str, &str)]) {
        let texts = texts(dir);
        let texts: Vec<_> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_log_is_private_and_holds_the_appended_bytes() {
        let dir = TestDir::new();
        let mut log = LogWriter::new(dir.path(), "a.out", 1000);
        log.append(b"").unwrap();
        check(&dir, &[]);
        log.append(b"one\nt").unwrap();
        log.append(b"wo\n").unwrap();
        check(&dir, &[("a.out", "one\ntwo\n")]);
        assert_eq!(fs::metadata(dir.join("a.out")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_long_log_is_rotated_between_lines_and_the_last_files_are_kept() {
        let dir = TestDir::new();
        let mut log = LogWriter::new(dir.path(), "a.out", 10);
        log.append(b"1234\n5678\nabcd\n").unwrap();
        check(&dir, &[("a.out", "abcd\n"), ("a.out.1", "1234\n5678\n")]);
        log.append(b"efghij\n").unwrap();
        check(&dir, &[("a.out", "efghij\n"), ("a.out.1", "1234\n5678\n"), ("a.out.2", "abcd\n")]);
        log.append(b"klmnop\nqrstuv\n").unwrap();
        let expected =
            [("a.out", "qrstuv\n"), ("a.out.2", "abcd\n"), ("a.out.3", "efghij\n"), ("a.out.4", "klmnop\n")];
        check(&dir, &expected);
        drop(log);
        let mut again = LogWriter::new(dir.path(), "a.out", 10);
        again.append(b"wxyzab\n").unwrap();
        assert_eq!(texts(&dir).last().unwrap(), &("a.out.5".to_owned(), "qrstuv\n".to_owned()));
    }

    #[test]
    fn a_line_longer_than_a_file_is_cut_up() {
        let dir = TestDir::new();
        let mut log = LogWriter::new(dir.path(), "a.out", 10);
        log.append(b"0123456789abcdefghijKLM\n").unwrap();
        check(&dir, &[("a.out", "KLM\n"), ("a.out.1", "0123456789"), ("a.out.2", "abcdefghij")]);
    }

    #[test]
    fn a_log_continues_after_a_full_disk_and_reports_the_loss_once() {
        let dir = TestDir::new();
        let path = dir.join("a.out");
        let mut log = LogWriter::new(dir.path(), "a.out", 1000);
        log.append(b"one\nhalf").unwrap();
        fs::rename(&path, dir.join("before")).unwrap();
        symlink("/dev/full", &path).unwrap();
        log.file = None;
        for _ in 0..2 {
            assert_eq!(log.append(b"two\nthree\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
        fs::rename(dir.join("before"), &path).unwrap();
        log.append(b"four\n").unwrap();
        log.append(b"five\n").unwrap();
        log.finish().unwrap();
        let full = io::Error::from(rustix::io::Errno::NOSPC);
        let missing = format!("... 20 bytes with 4 newlines are missing here: {full}\n");
        check(&dir, &[("a.out", &format!("one\nhalf\n{missing}four\nfive\n"))]);
    }

    #[test]
    fn a_loss_at_the_end_is_reported() {
        let dir = TestDir::new();
        symlink("/dev/full", dir.join("a.out")).unwrap();
        let mut log = LogWriter::new(dir.path(), "a.out", 1000);
        log.append(b"one\n").unwrap_err();
        fs::remove_file(dir.join("a.out")).unwrap();
        log.finish().unwrap();
        let [(_, text)] = &texts(&dir)[..] else { panic!("one file") };
        assert!(text.starts_with("... 4 bytes with 1 newlines are missing here: "), "{text}");
    }

    #[test]
    fn an_empty_log_is_removed() {
        let dir = TestDir::new();
        LogWriter::new(dir.path(), "a.out", 1000).finish().unwrap();
        LogWriter::open(dir.path(), "a.out", 1000).unwrap().finish().unwrap();
        check(&dir, &[]);
    }

    /// Disk with room for a number of bytes.
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
    fn bytes_that_a_full_disk_took_do_not_count_as_missing() {
        let mut bytes = &b"one\ntwo\n"[..];
        let mut small = Small(Vec::new(), 5);
        assert_eq!(write_all(&mut small, &mut bytes).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!((bytes, &small.0[..]), (&b"wo\n"[..], &b"one\nt"[..]));
    }
}
