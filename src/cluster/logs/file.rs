//! A log as it is written: raw bytes, put aside when it gets long. It blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::name::part_of;
use crate::config::{LOG_FILE_BYTES_MAX, LOG_FILES_KEPT};

/// A log that is written.
#[derive(Debug)]
pub(super) struct LogWriter {
    path: PathBuf,
    /// None once it could not be written.
    file: Option<File>,
    size: u64,
    size_max: u64,
    /// How many files of this log were put aside.
    put_aside: u64,
}

impl LogWriter {
    /// The log `dir/file`, which is made, or continued if it is there.
    pub(super) fn open(dir: &Path, file: &str) -> io::Result<Self> {
        Self::with_size_max(dir, file, LOG_FILE_BYTES_MAX)
    }

    pub(super) fn with_size_max(dir: &Path, file: &str, size_max: u64) -> io::Result<Self> {
        let path = dir.join(file);
        let put_aside = last_put_aside(dir, file)?;
        let file = append_to(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file: Some(file), size, size_max, put_aside })
    }

    /// Adds bytes. Files begin with a line's start, unless a line is longer than a file.
    ///
    /// # Errors
    ///
    /// Those of the operating system, once: then the log has ended, and what is added is dropped.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let result = self.append_all(bytes);
        if result.is_err() {
            self.file = None;
        }
        result
    }

    /// The file that is written by now.
    pub(super) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// How many files of this log were put aside.
    pub(super) fn count(&self) -> u64 {
        self.put_aside
    }

    fn append_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let Some(file) = &mut self.file else { return Ok(()) };
            let room = self.size_max.saturating_sub(self.size).min(bytes.len() as u64) as usize;
            let fits = match bytes[..room].iter().rposition(|&byte| byte == b'\n') {
                _ if room == bytes.len() => room,
                Some(newline) => newline + 1,
                None if self.size == 0 => room,
                None => 0,
            };
            let (now, later) = bytes.split_at(fits);
            file.write_all(now)?;
            self.size += now.len() as u64;
            bytes = later;
            if !bytes.is_empty() {
                self.put_aside()?;
            }
        }
        Ok(())
    }

    /// Gives the file a name for good, and begins another.
    fn put_aside(&mut self) -> io::Result<()> {
        self.put_aside += 1;
        fs::rename(&self.path, numbered(&self.path, self.put_aside))?;
        if let Some(old) = self.put_aside.checked_sub(LOG_FILES_KEPT).filter(|&old| old > 0) {
            // It is as good if it was removed already.
            let _ = fs::remove_file(numbered(&self.path, old));
        }
        self.file = Some(append_to(&self.path)?);
        self.size = 0;
        Ok(())
    }
}

pub(super) fn numbered(path: &Path, number: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The largest number of a file of that log; 0 if none was put aside.
fn last_put_aside(dir: &Path, log: &str) -> io::Result<u64> {
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
    use crate::cluster::scratch::Scratch;

    fn texts(scratch: &Scratch) -> Vec<(String, String)> {
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
    fn check(scratch: &Scratch, expected: &[(&str, &str)]) {
        let texts = texts(scratch);
        let texts: Vec<_> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_log_is_for_its_owner_and_holds_what_was_added() {
        let scratch = Scratch::new();
        let mut log = LogWriter::open(scratch.path(), "a.out").unwrap();
        check(&scratch, &[("a.out", "")]);
        log.append(b"one\nt").unwrap();
        log.append(b"wo\n").unwrap();
        check(&scratch, &[("a.out", "one\ntwo\n")]);
        assert_eq!(fs::metadata(scratch.join("a.out")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_long_log_is_put_aside_between_lines_and_the_last_few_files_are_kept() {
        let scratch = Scratch::new();
        let mut log = LogWriter::with_size_max(scratch.path(), "a.out", 10).unwrap();
        log.append(b"1234\n5678\nabcd\n").unwrap();
        check(&scratch, &[("a.out", "abcd\n"), ("a.out.1", "1234\n5678\n")]);
        log.append(b"efghij\n").unwrap();
        check(&scratch, &[("a.out", "efghij\n"), ("a.out.1", "1234\n5678\n"), ("a.out.2", "abcd\n")]);
        log.append(b"klmnop\nqrstuv\n").unwrap();
        let expected =
            [("a.out", "qrstuv\n"), ("a.out.2", "abcd\n"), ("a.out.3", "efghij\n"), ("a.out.4", "klmnop\n")];
        check(&scratch, &expected);
        drop(log);
        let mut again = LogWriter::with_size_max(scratch.path(), "a.out", 10).unwrap();
        again.append(b"wxyzab\n").unwrap();
        assert_eq!(texts(&scratch).last().unwrap(), &("a.out.5".to_owned(), "qrstuv\n".to_owned()));
    }

    #[test]
    fn a_line_longer_than_a_file_is_cut_up() {
        let scratch = Scratch::new();
        let mut log = LogWriter::with_size_max(scratch.path(), "a.out", 10).unwrap();
        log.append(b"0123456789abcdefghijKLM\n").unwrap();
        check(&scratch, &[("a.out", "KLM\n"), ("a.out.1", "0123456789"), ("a.out.2", "abcdefghij")]);
    }

    #[test]
    fn a_full_disk_is_told_once_and_ends_the_log() {
        let scratch = Scratch::new();
        symlink("/dev/full", scratch.join("a.out")).unwrap();
        let mut log = LogWriter::open(scratch.path(), "a.out").unwrap();
        assert_eq!(log.append(b"one\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        log.append(b"two\n").unwrap();
    }
}
