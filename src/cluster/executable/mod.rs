//! Executables: the driver's own, which is shipped to the nodes, and the platforms that they run on.
//!
//! An executable is identified by the BLAKE3 digest of its bytes; its ELF header says which platform it needs. All
//! functions here block on file I/O: call them on a thread that may block.

mod elf;
mod platform;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::{EXECUTABLE_BYTES_MAX, EXECUTABLE_CHUNK_BYTES};

pub use elf::ElfError;
pub(super) use platform::this_machine;
pub use platform::{Platform, PlatformMismatch};

use elf::Image;

/// Executable of the running process. The link stays valid when the file is replaced by a new build.
const SELF: &str = "/proc/self/exe";

/// BLAKE3 digest of an executable's bytes; displayed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Open executable with its digest, size and platform.
#[derive(Debug)]
pub(super) struct Executable {
    file: File,
    path: PathBuf,
    digest: Digest,
    size: u64,
    platform: Platform,
}

/// Failure to read an executable, or to run it on this machine.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExecutableError {
    /// The file cannot be read.
    #[error("cannot read the executable {path:?}: {error}")]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        error: io::Error,
    },
    /// The file is not a program.
    #[error("cannot run {path:?} as a worker: {error}")]
    NotProgram {
        /// Path of the file.
        path: PathBuf,
        /// Reason.
        error: ElfError,
    },
    /// The file exceeds the size that nodes accept.
    #[error(
        "the executable {path:?} has {size} bytes, and nodes take at most {EXECUTABLE_BYTES_MAX}; \
         build it with --release, or with `strip = true` in its profile"
    )]
    TooLarge {
        /// Path of the file.
        path: PathBuf,
        /// Size of the file in bytes.
        size: u64,
    },
    /// The file was changed while it was read.
    #[error("the executable {path:?} was changed while it was read; run the program again")]
    Changed {
        /// Path of the file.
        path: PathBuf,
    },
    /// The program is built for another platform.
    #[error(transparent)]
    Platform(#[from] PlatformMismatch),
    /// The machine lacks the dynamic loader that the program names.
    #[error(
        "the program asks for the loader {loader:?}, which this node does not have; \
         build it with `cargo build --target {target}`, whose programs need none"
    )]
    NoLoader {
        /// Path of the loader.
        loader: String,
        /// Target whose programs need no loader.
        target: String,
    },
}

impl Executable {
    /// Opens the executable that this process runs.
    ///
    /// # Errors
    ///
    /// [`ExecutableError`] if it cannot be read, or is too large to be shipped.
    pub(super) fn of_this_process() -> Result<Self, ExecutableError> {
        Self::open(Path::new(SELF))
    }

    /// Opens an executable and hashes all of its bytes.
    ///
    /// # Errors
    ///
    /// [`ExecutableError`] if it cannot be read, is no Linux program, or is too large to be shipped.
    pub(super) fn open(path: &Path) -> Result<Self, ExecutableError> {
        let (file, size, image) = read_header(path)?;
        if size > EXECUTABLE_BYTES_MAX {
            return Err(ExecutableError::TooLarge { path: path.to_owned(), size });
        }
        let not_program = |error| ExecutableError::NotProgram { path: path.to_owned(), error };
        let platform = Platform::of_image(&image).map_err(not_program)?;
        let (digest, hashed) =
            digest(&file).map_err(|error| ExecutableError::Read { path: path.to_owned(), error })?;
        // A linker that writes into the file at this moment would give a digest that no node can reproduce.
        if hashed != size {
            return Err(ExecutableError::Changed { path: path.to_owned() });
        }
        Ok(Self { file, path: path.to_owned(), digest, size, platform })
    }

    /// Digest of the executable's bytes.
    #[must_use]
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// Size in bytes.
    #[must_use]
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Platform that the executable needs.
    #[must_use]
    pub(super) fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Bytes from `offset` on: at most `bytes_max`, a chunk, or the rest, whichever is least.
    ///
    /// # Errors
    ///
    /// [`ExecutableError`] if the file cannot be read, or has become shorter.
    pub(super) fn read(&self, offset: u64, bytes_max: usize) -> Result<Vec<u8>, ExecutableError> {
        let left = self.size.saturating_sub(offset);
        let length = (bytes_max.min(EXECUTABLE_CHUNK_BYTES) as u64).min(left);
        let mut bytes = vec![0; length as usize];
        // Positioned reads share no file offset, so chunks for several nodes can be read at the same time.
        self.file.read_exact_at(&mut bytes, offset).map_err(|error| {
            let path = self.path.clone();
            match error.kind() {
                io::ErrorKind::UnexpectedEof => ExecutableError::Changed { path },
                _ => ExecutableError::Read { path, error },
            }
        })?;
        Ok(bytes)
    }
}

/// Checks that this machine can start an executable: its platform, and that its loader exists.
///
/// # Errors
///
/// [`ExecutableError`] if it cannot; the text says what to build instead.
pub(super) fn check_runs_here(path: &Path) -> Result<(), ExecutableError> {
    let (_, _, image) = read_header(path)?;
    let not_program = |error| ExecutableError::NotProgram { path: path.to_owned(), error };
    let platform = Platform::of_image(&image).map_err(not_program)?;
    match image.loader {
        // The kernel looks for exactly this path. If it exists, the program can start even where the standard
        // paths of `this_machine` have no loader, as on NixOS.
        Some(loader) if Path::new(&loader).exists() && this_machine().has_the_processor_of(&platform) => {
            let machine = this_machine().with_glibc(platform::glibc_of(Path::new(&loader)));
            match machine.has_the_glibc_of(&platform) {
                true => Ok(()),
                false => Err(PlatformMismatch { program: platform, machine }.into()),
            }
        }
        loader => {
            this_machine().can_run(&platform)?;
            let target = platform.known_target();
            loader.map_or(Ok(()), |loader| Err(ExecutableError::NoLoader { loader, target }))
        }
    }
}

/// Opens a file and parses its ELF header.
fn read_header(path: &Path) -> Result<(File, u64, Image), ExecutableError> {
    let failed = |error| ExecutableError::Read { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let image = elf::inspect(size, |offset, buffer| file.read_exact_at(buffer, offset));
    match image {
        Ok(image) => Ok((file, size, image)),
        Err(ElfError::Read(error)) => Err(failed(error)),
        Err(error) => Err(ExecutableError::NotProgram { path: path.to_owned(), error }),
    }
}

/// Digest and size of a whole file.
pub(in crate::cluster) fn digest(mut file: &File) -> io::Result<(Digest, u64)> {
    // Read, not mapped: a file that is truncated while it is mapped would kill this process by SIGBUS.
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&mut file)?;
    Ok((Digest(hasher.finalize().into()), hasher.count()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::elf::tests::program;
    use super::*;
    use crate::cluster::test_dir::TestDir;

    #[test]
    fn this_process_is_an_executable_that_this_machine_runs() {
        let executable = Executable::of_this_process().unwrap();
        let bytes = fs::read(SELF).unwrap();
        assert_eq!(executable.digest(), Digest(blake3::hash(&bytes).into()));
        assert_eq!(executable.size(), bytes.len() as u64);
        this_machine().can_run(executable.platform()).unwrap();
        check_runs_here(Path::new(SELF)).unwrap();
    }

    #[test]
    fn chunks_put_together_are_the_file() {
        let executable = Executable::of_this_process().unwrap();
        let mut hasher = blake3::Hasher::new();
        while hasher.count() < executable.size() {
            hasher.update(&executable.read(hasher.count(), usize::MAX).unwrap());
        }
        assert_eq!(Digest(hasher.finalize().into()), executable.digest());
        assert!(executable.read(executable.size(), 10).unwrap().is_empty());
        assert!(executable.read(u64::MAX, 10).unwrap().is_empty());
        assert_eq!(executable.read(1, 3).unwrap(), b"ELF");
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let dir = TestDir::new();
        let path = dir.join("program");
        fs::write(&path, program(62, None)).unwrap();
        let executable = Executable::open(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
        assert!(matches!(executable.read(0, 100), Err(ExecutableError::Changed { .. })));
    }

    #[test]
    fn a_script_and_a_missing_file_are_no_executables() {
        let dir = TestDir::new();
        let script = dir.join("script");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        let error = Executable::open(&script).unwrap_err();
        assert!(error.to_string().contains("script") && error.to_string().contains("cargo build"), "{error}");
        let missing = Executable::open(&dir.join("missing"));
        assert!(matches!(missing, Err(ExecutableError::Read { .. })));
        assert!(matches!(Executable::open(dir.path()), Err(ExecutableError::Read { .. })));
    }

    #[test]
    fn a_program_that_cannot_start_here_is_rejected_before_its_start() {
        let dir = TestDir::new();
        let path = dir.join("program");
        let machine = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
        let foreign = if cfg!(target_arch = "x86_64") { 183 } else { 62 };

        fs::write(&path, program(foreign, None)).unwrap();
        assert!(matches!(check_runs_here(&path), Err(ExecutableError::Platform(_))));
        fs::write(&path, program(foreign, Some(SELF))).unwrap();
        assert!(matches!(check_runs_here(&path), Err(ExecutableError::NotProgram { .. })));
        fs::write(&path, program(machine, None)).unwrap();
        check_runs_here(&path).unwrap();

        let elsewhere = dir.join("ld-linux-of-another-system.so");
        fs::write(&path, program(machine, elsewhere.to_str())).unwrap();
        let text = check_runs_here(&path).unwrap_err().to_string();
        assert!(text.contains("musl"), "{text}");
        fs::write(&elsewhere, "").unwrap();
        check_runs_here(&path).unwrap();
    }
}
