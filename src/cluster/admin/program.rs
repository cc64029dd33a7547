//! A program that is to be submitted: its file, what identifies it, and what it is built for.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// How much of a file is read at once.
const READ_BYTES: usize = 1 << 20;

/// How much of an executable's beginning says what it is: its header, and the name of its loader.
const HEADER_BYTES: usize = 4 << 10;

/// An executable's file, read once from end to end.
#[derive(Debug)]
pub struct Program {
    /// The open file.
    pub file: File,
    /// Its BLAKE3 digest.
    pub digest: [u8; 32],
    /// Its length in bytes.
    pub size: u64,
    /// What it is built for, such as `x86_64-linux-gnu`.
    pub platform: String,
}

/// Why a file cannot be submitted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// It cannot be read.
    #[error("cannot read {path:?}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// It is no program of Linux: a script, a library for another system.
    #[error("{path:?} is no Linux executable; submit the program that `cargo build` made")]
    NotExecutable {
        /// The file.
        path: PathBuf,
    },
}

impl Program {
    /// Reads an executable.
    ///
    /// # Errors
    ///
    /// [`ProgramError`] if it cannot be read, or is none.
    pub fn open(path: &Path) -> Result<Self, ProgramError> {
        let failed = |source| ProgramError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let platform = platform(&mut file).map_err(failed)?;
        let platform = platform.ok_or_else(|| ProgramError::NotExecutable { path: path.to_owned() })?;
        let (digest, size) = digest(&mut file).map_err(failed)?;
        Ok(Self { file, digest, size, platform })
    }
}

fn digest(file: &mut File) -> io::Result<([u8; 32], u64)> {
    file.seek(SeekFrom::Start(0))?;
    let (mut hasher, mut size) = (blake3::Hasher::new(), 0);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hasher.finalize().into(), size)),
            n => {
                hasher.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
}

/// What an ELF file is built for: its processor, and the libc whose loader it names.
fn platform(file: &mut File) -> io::Result<Option<String>> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    file.take(HEADER_BYTES as u64).read_to_end(&mut header)?;
    Ok(platform_of(&header))
}

fn platform_of(header: &[u8]) -> Option<String> {
    // The magic, 64 bits, little endian.
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let machine = u16::from_le_bytes(header.get(18..20)?.try_into().ok()?);
    let processor = match machine {
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        _ => return None,
    };
    let names = |loader: &[u8]| header.windows(loader.len()).any(|window| window == loader);
    let libc = match () {
        () if names(b"/ld-linux") => "gnu",
        // Without a loader it is linked statically, which Rust does with musl.
        () => "musl",
    };
    Some(format!("{processor}-linux-{libc}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_can_be_submitted() {
        let program = Program::open(Path::new("/proc/self/exe")).unwrap();
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!((program.size, program.digest), (bytes.len() as u64, blake3::hash(&bytes).into()));
        let processor = std::env::consts::ARCH;
        assert!(program.platform.starts_with(&format!("{processor}-linux-")), "{}", program.platform);
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert_eq!(platform_of(b"#!/bin/sh\n"), None);
        assert_eq!(platform_of(b"\x7fELF\x02\x01"), None);
        let missing = Program::open(Path::new("/proc/self/nothing"));
        assert!(matches!(missing, Err(ProgramError::Read { .. })));
        let script = Program::open(Path::new("/proc/self/status"));
        assert!(matches!(script, Err(ProgramError::NotExecutable { .. })));
    }

    #[test]
    fn the_loader_tells_the_libc() {
        let elf = |machine: u16, loader: &str| {
            let mut header = b"\x7fELF\x02\x01".to_vec();
            header.resize(18, 0);
            header.extend(machine.to_le_bytes());
            header.extend(loader.as_bytes());
            platform_of(&header)
        };
        assert_eq!(elf(62, "/lib64/ld-linux-x86-64.so.2").as_deref(), Some("x86_64-linux-gnu"));
        assert_eq!(elf(183, "/lib/ld-musl-aarch64.so.1").as_deref(), Some("aarch64-linux-musl"));
        assert_eq!(elf(62, "").as_deref(), Some("x86_64-linux-musl"));
        assert_eq!(elf(40, "/lib/ld-linux.so.3"), None);
    }
}
