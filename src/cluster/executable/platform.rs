//! Platforms: the processor and C library that an executable needs, or that a machine has.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;

use thiserror::Error;

use super::elf::glibc::Glibc;
use super::elf::{self, ElfError, Image};

/// Longest name of a processor that is accepted from a peer, in bytes.
const PROCESSOR_BYTES_MAX: usize = 32;

/// Processor and C libraries that an executable needs, or that a machine has.
///
/// | text | executable | machine |
/// |---|---|---|
/// | `x86_64-linux-gnu2.36` | needs glibc 2.36 or later | has glibc 2.36 |
/// | `x86_64-linux-gnu` | needs some glibc | has glibc, version unknown |
/// | `x86_64-linux-musl` | needs musl | has musl |
/// | `x86_64-linux-any` | needs no C library | has none |
/// | `x86_64-linux-gnu2.36+musl` | | has both |
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Platform {
    /// First part of a Rust target.
    processor: String,
    gnu: bool,
    /// Version of glibc, if it is known.
    glibc: Option<Glibc>,
    musl: bool,
}

impl Platform {
    /// Platform that an executable needs.
    pub(super) fn of_image(image: &Image) -> Result<Self, ElfError> {
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let (gnu, musl) = match &image.loader {
            None => (false, false),
            Some(path) if name(path).starts_with("ld-musl-") => (false, true),
            // On s390x and powerpc64 glibc's loader is called `ld64.so`.
            Some(path) if name(path).starts_with("ld-linux") || name(path).starts_with("ld64.so") => {
                (true, false)
            }
            Some(path) => return Err(ElfError::Loader { path: path.clone() }),
        };
        Ok(Self { processor: image.processor.to_owned(), gnu, glibc: image.glibc.filter(|_| gnu), musl })
    }

    /// Checks that a machine of this platform can run `program`.
    ///
    /// # Errors
    ///
    /// [`PlatformMismatch`] if it cannot; the text says what to build instead.
    pub fn can_run(&self, program: &Self) -> Result<(), PlatformMismatch> {
        // A statically linked program needs neither library.
        let has_libraries = (self.gnu || !program.gnu) && (self.musl || !program.musl);
        if self.has_the_processor_of(program) && has_libraries && self.has_the_glibc_of(program) {
            return Ok(());
        }
        Err(PlatformMismatch { program: program.clone(), machine: self.clone() })
    }

    /// Reports that the machine's glibc is late enough, or that this is unknown: the loader will decide then.
    pub(super) fn has_the_glibc_of(&self, program: &Self) -> bool {
        !matches!((self.glibc, program.glibc), (Some(has), Some(needs)) if has < needs)
    }

    /// Same platform with another version of glibc.
    pub(super) fn with_glibc(self, glibc: Option<Glibc>) -> Self {
        Self { glibc, ..self }
    }

    pub(super) fn has_the_processor_of(&self, program: &Self) -> bool {
        self.processor == program.processor
    }

    /// Target of `rustc` whose programs run on every machine with this processor, whatever is installed.
    pub(super) fn known_target(&self) -> String {
        // Rust links musl targets statically, so such a program needs no loader.
        match self.processor.as_str() {
            "arm" => "arm-unknown-linux-musleabihf".to_owned(),
            "riscv64" => "riscv64gc-unknown-linux-musl".to_owned(),
            processor => format!("{processor}-unknown-linux-musl"),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-linux-", self.processor)?;
        match (self.gnu, self.musl) {
            (false, true) => return f.write_str("musl"),
            (false, false) => return f.write_str("any"),
            (true, _) => f.write_str("gnu")?,
        }
        if let Some(version) = self.glibc {
            write!(f, "{version}")?;
        }
        if self.musl { f.write_str("+musl") } else { Ok(()) }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        // The text comes from a peer: an error repeats only its beginning.
        let unknown = || PlatformError { text: text.chars().take(2 * PROCESSOR_BYTES_MAX).collect() };
        let (processor, libraries) = text.split_once("-linux-").ok_or_else(unknown)?;
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if !(1..=PROCESSOR_BYTES_MAX).contains(&processor.len()) || !processor.bytes().all(is_name) {
            return Err(unknown());
        }
        let (gnu, musl) = match libraries {
            "musl" => (None, true),
            "any" => (None, false),
            _ => match libraries.strip_suffix("+musl") {
                Some(gnu) => (Some(gnu), true),
                None => (Some(libraries), false),
            },
        };
        let version = gnu.map(|gnu| gnu.strip_prefix("gnu").ok_or_else(unknown)).transpose()?;
        let version = version.filter(|version| !version.is_empty()).map(str::parse);
        let glibc = version.transpose().map_err(|()| unknown())?;
        Ok(Self { processor: processor.to_owned(), gnu: gnu.is_some(), glibc, musl })
    }
}

/// Text that does not describe a platform.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is no platform; one looks like x86_64-linux-gnu")]
pub struct PlatformError {
    text: String,
}

/// The program is built for another platform than the machine has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the program is built for {program} and the node runs {machine}; build it with `cargo build --target {}`, \
     whose programs run on every such node, or {}", .machine.known_target(), mismatch(.program, .machine)
)]
pub struct PlatformMismatch {
    /// Platform that the program needs.
    pub program: Platform,
    /// Platform of the machine.
    pub machine: Platform,
}

/// Alternative to a build for another target.
fn mismatch(program: &Platform, machine: &Platform) -> &'static str {
    match machine.has_the_glibc_of(program) {
        true => "start it from a machine like the nodes",
        false => "on a system whose glibc (the number behind gnu) is no later than the node's",
    }
}

/// Platform of this machine: its processor, and the C libraries whose loaders exist at the standard paths. Reads
/// the file system.
#[must_use]
pub(crate) fn this_machine() -> Platform {
    let processor = this_processor();
    let exist = |paths: &[&str]| paths.iter().any(|path| Path::new(path).exists());
    let (gnu, musl) = loaders(processor);
    let glibc = gnu.iter().find_map(|loader| glibc_of(Path::new(loader)));
    Platform { processor: processor.to_owned(), gnu: exist(gnu), glibc, musl: exist(musl) }
}

/// Version of the glibc whose loader this is. The library lies beside the loader, once symbolic links are resolved.
pub(super) fn glibc_of(loader: &Path) -> Option<Glibc> {
    let library = fs::canonicalize(loader).ok()?.with_file_name("libc.so.6");
    let file = File::open(library).ok()?;
    let size = file.metadata().ok()?.len();
    // A library that cannot be parsed is no reason to refuse a program: the loader decides at its start.
    elf::inspect_library(size, |offset, buffer| file.read_exact_at(buffer, offset)).ok()?
}

/// Processor that this program is built for, named as in [`Image::processor`].
fn this_processor() -> &'static str {
    // `ARCH` calls 32-bit x86 by its family and does not tell the byte order.
    match std::env::consts::ARCH {
        "x86" => "i686",
        "powerpc64" if cfg!(target_endian = "little") => "powerpc64le",
        processor => processor,
    }
}

/// Standard paths of glibc's loader and of musl's.
fn loaders(processor: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match processor {
        "x86_64" => (&["/lib64/ld-linux-x86-64.so.2"], &["/lib/ld-musl-x86_64.so.1"]),
        "i686" => (&["/lib/ld-linux.so.2"], &["/lib/ld-musl-i386.so.1"]),
        "aarch64" => (&["/lib/ld-linux-aarch64.so.1"], &["/lib/ld-musl-aarch64.so.1"]),
        "arm" => (
            &["/lib/ld-linux-armhf.so.3", "/lib/ld-linux.so.3"],
            &["/lib/ld-musl-armhf.so.1", "/lib/ld-musl-arm.so.1"],
        ),
        "riscv64" => (&["/lib/ld-linux-riscv64-lp64d.so.1"], &["/lib/ld-musl-riscv64.so.1"]),
        "powerpc64" => (&["/lib64/ld64.so.1"], &["/lib/ld-musl-powerpc64.so.1"]),
        "powerpc64le" => (&["/lib64/ld64.so.2"], &["/lib/ld-musl-powerpc64le.so.1"]),
        "s390x" => (&["/lib/ld64.so.1"], &["/lib/ld-musl-s390x.so.1"]),
        "loongarch64" => (&["/lib64/ld-linux-loongarch-lp64d.so.1"], &["/lib/ld-musl-loongarch64.so.1"]),
        _ => (&[], &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    fn of(loader: Option<&str>) -> Result<Platform, ElfError> {
        Platform::of_image(&Image { processor: "x86_64", loader: loader.map(str::to_owned), glibc: None })
    }

    #[test]
    fn the_loader_determines_the_c_library_that_a_program_needs() {
        let shown = |loader| of(loader).unwrap().to_string();
        assert_eq!(shown(Some("/lib64/ld-linux-x86-64.so.2")), "x86_64-linux-gnu");
        assert_eq!(shown(Some("/lib/ld64.so.1")), "x86_64-linux-gnu");
        assert_eq!(shown(Some("/lib/ld-musl-x86_64.so.1")), "x86_64-linux-musl");
        assert_eq!(shown(None), "x86_64-linux-any");
        let error = of(Some("/system/bin/linker64")).unwrap_err();
        assert!(error.to_string().contains("/system/bin/linker64"), "{error}");
    }

    #[test]
    fn a_platform_survives_a_round_trip_through_text() {
        for text in [
            "x86_64-linux-gnu",
            "x86_64-linux-gnu2.36",
            "aarch64-linux-musl",
            "riscv64-linux-any",
            "s390x-linux-gnu+musl",
            "s390x-linux-gnu2.4+musl",
        ] {
            assert_eq!(platform(text).to_string(), text);
        }
        let malformed =
            ["", "x86_64", "x86_64-linux-", "x86_64-linux-uclibc", "-linux-gnu", "../x-linux-gnu"];
        let versions = ["gnu2", "gnu2.", "gnu.2", "gnu2.+3", "gnu2.3.4", "gnu2.99999", "musl1.2", "any+musl"];
        let versions = versions.map(|libraries| format!("x86_64-linux-{libraries}"));
        for text in malformed.iter().copied().chain(versions.iter().map(String::as_str)) {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
        assert!(format!("{}-linux-gnu", "x".repeat(33)).parse::<Platform>().is_err());
    }

    #[test]
    fn a_machine_runs_programs_whose_needs_it_covers() {
        let both = platform("x86_64-linux-gnu+musl");
        for text in ["x86_64-linux-gnu", "x86_64-linux-musl", "x86_64-linux-any"] {
            both.can_run(&platform(text)).unwrap();
        }
        platform("x86_64-linux-any").can_run(&platform("x86_64-linux-any")).unwrap();
        platform("x86_64-linux-musl").can_run(&platform("x86_64-linux-gnu")).unwrap_err();
        platform("aarch64-linux-gnu").can_run(&platform("x86_64-linux-any")).unwrap_err();
    }

    #[test]
    fn a_machine_runs_programs_that_need_no_later_glibc() {
        let node = platform("x86_64-linux-gnu2.36+musl");
        for text in ["gnu", "gnu2.2", "gnu2.9", "gnu2.36", "musl", "any"] {
            node.can_run(&platform(&format!("x86_64-linux-{text}"))).unwrap();
        }
        // The machine's version is unknown: the loader will decide.
        platform("x86_64-linux-gnu").can_run(&platform("x86_64-linux-gnu9.0")).unwrap();
        platform("x86_64-linux-gnu3.0").can_run(&platform("x86_64-linux-gnu2.99")).unwrap();
        let text = node.can_run(&platform("x86_64-linux-gnu2.39")).unwrap_err().to_string();
        for part in ["gnu2.39 and the node runs", "gnu2.36", "x86_64-unknown-linux-musl", "no later than"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_mismatch_names_both_platforms_and_what_to_build() {
        let node = platform("aarch64-linux-gnu");
        let text = node.can_run(&platform("x86_64-linux-gnu")).unwrap_err().to_string();
        for part in ["x86_64-linux-gnu", "aarch64-linux-gnu", "--target aarch64-unknown-linux-musl"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
