//! ELF header of an executable: its processor and its dynamic loader. [`glibc`] reads the version of the C library
//! that it needs.
//!
//! The file is untrusted: every offset and length is checked against the file's size before it is used.

pub(super) mod glibc;

use std::io;

use thiserror::Error;

use glibc::{DynamicSection, Glibc};

/// Bytes read as the header: 64 in an ELF64 file; an ELF32 header has 52.
const HEADER_BYTES: usize = 64;

/// Most program headers accepted; programs have about a dozen.
const SEGMENTS_MAX: u16 = 1024;

/// Longest path of a loader in bytes, as Linux limits a path (`PATH_MAX`).
const LOADER_BYTES_MAX: u64 = 4096;

/// Type of the program header that names the loader.
const PT_INTERP: u32 = 3;

/// Failure to recognise a file as a program that a node could run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ElfError {
    /// The file is not an ELF file.
    #[error(
        "it is no ELF file; scripts and libraries cannot be run as workers, only what `cargo build` links"
    )]
    NotElf,
    /// The file is built for another operating system.
    #[error("it is not for Linux; build it for a target such as x86_64-unknown-linux-gnu")]
    NotLinux,
    /// The file is an object file or a library.
    #[error("it is an object file or a library, and no program")]
    NotProgram,
    /// The file is built for a processor that is not supported.
    #[error("it is for a processor that is not known here (ELF machine {machine})")]
    Processor {
        /// ELF machine number.
        machine: u16,
    },
    /// The file names a loader that is neither glibc's nor musl's.
    #[error(
        "its loader {path:?} is neither glibc's nor musl's; build it for a linux-gnu or a linux-musl target"
    )]
    Loader {
        /// Path of the loader.
        path: String,
    },
    /// An offset, length or value in the file is invalid.
    #[error("it is damaged: its {0}")]
    Damaged(&'static str),
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Read(io::Error),
}

impl From<io::Error> for ElfError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// Program, as its headers describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// Processor, as the first part of a Rust target.
    pub(super) processor: &'static str,
    /// Path of the loader; `None` for a statically linked program.
    pub(super) loader: Option<String>,
    /// Latest version of glibc that it needs symbols of.
    pub(super) glibc: Option<Glibc>,
}

/// Reads the headers of a file of `size` bytes. `read` fills the buffer from an offset on.
pub(super) fn inspect(size: u64, read: impl Fn(u64, &mut [u8]) -> io::Result<()>) -> Result<Image, ElfError> {
    let header = header(size, &read)?;
    let fields = ElfReader::of(&header);
    let processor = processor(&fields)?;
    let segments = segments(&fields, size, &read)?;
    let names_loader = segments.iter().find(|segment| segment.kind == PT_INTERP);
    let loader = names_loader.map(|segment| loader_name(*segment, size, &read)).transpose()?;
    let glibc =
        DynamicSection::find(fields, &segments, size, &read)?.map_or(Ok(None), |tables| tables.needed())?;
    Ok(Image { processor, loader, glibc })
}

/// Reads the ELF header and checks its magic number.
fn header(
    size: u64,
    read: &impl Fn(u64, &mut [u8]) -> io::Result<()>,
) -> Result<[u8; HEADER_BYTES], ElfError> {
    let mut header = [0; HEADER_BYTES];
    let there = size.min(HEADER_BYTES as u64) as usize;
    read(0, &mut header[..there])?;
    if !header.starts_with(b"\x7fELF") {
        return Err(ElfError::NotElf);
    }
    if there < HEADER_BYTES {
        return Err(ElfError::Damaged("header is cut off"));
    }
    Ok(header)
}

/// Latest version that a C library defines; `None` if it defines none.
pub(super) fn inspect_library(
    size: u64,
    read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
) -> Result<Option<Glibc>, ElfError> {
    let header = header(size, &read)?;
    let fields = ElfReader::of(&header);
    let segments = segments(&fields, size, &read)?;
    DynamicSection::find(fields, &segments, size, &read)?.map_or(Ok(None), |tables| tables.defined())
}

/// Processor of a program; fails for files that are no programs for Linux.
fn processor(header: &ElfReader<'_>) -> Result<&'static str, ElfError> {
    let [.., class, order, version, system] = header.array::<8>(0);
    // The reader took the class and the byte order on trust, so they are checked before any field is.
    if !matches!(class, 1 | 2) || !matches!(order, 1 | 2) || version != 1 {
        return Err(ElfError::Damaged("header has values that mean nothing"));
    }
    // OS/ABI 0 is System V and 3 is GNU; Linux toolchains use both.
    if !matches!(system, 0 | 3) {
        return Err(ElfError::NotLinux);
    }
    // A position-independent program has the type of a shared library (3). Only the program has an entry point.
    let is_program = matches!(header.half(16), 2 | 3) && header.address(24, 24) != 0;
    if !is_program {
        return Err(ElfError::NotProgram);
    }
    // Machine number, 64 bits, little endian.
    match (header.half(18), header.wide, header.little) {
        (3, false, true) => Ok("i686"),
        (21, true, false) => Ok("powerpc64"),
        (21, true, true) => Ok("powerpc64le"),
        (22, true, false) => Ok("s390x"),
        (40, false, true) => Ok("arm"),
        (62, true, true) => Ok("x86_64"),
        (183, true, true) => Ok("aarch64"),
        (243, true, true) => Ok("riscv64"),
        (258, true, true) => Ok("loongarch64"),
        (machine, ..) => Err(ElfError::Processor { machine }),
    }
}

/// Program header: a part of the file that is mapped, or that the loader interprets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) kind: u32,
    pub(super) offset: u64,
    /// Address in memory that the file asks for.
    pub(super) address: u64,
    /// Bytes of it that are in the file.
    pub(super) length: u64,
}

/// Reads the program headers.
pub(super) fn segments(
    header: &ElfReader<'_>,
    size: u64,
    read: &impl Fn(u64, &mut [u8]) -> io::Result<()>,
) -> Result<Vec<Segment>, ElfError> {
    let (table, entry, count) = (header.address(32, 28), header.half2(54, 42), header.half2(56, 44));
    // The ABI fixes the size of an entry, and the limit on their number bounds the allocation below.
    if entry != if header.wide { 56 } else { 32 } || count > SEGMENTS_MAX {
        return Err(ElfError::Damaged("table of segments has a shape that no program's has"));
    }
    let mut bytes = vec![0; usize::from(entry) * usize::from(count)];
    if !within(table, bytes.len() as u64, size) {
        return Err(ElfError::Damaged("table of segments lies outside of it"));
    }
    read(table, &mut bytes)?;
    let segment = |bytes| {
        // Field offsets of `Elf64_Phdr` and `Elf32_Phdr`; `p_flags` stands at different places in the two.
        let fields = ElfReader { bytes, ..*header };
        Segment {
            kind: fields.word(0),
            offset: fields.address(8, 4),
            address: fields.address(16, 8),
            length: fields.address(32, 16),
        }
    };
    Ok(bytes.chunks_exact(entry.into()).map(segment).collect())
}

fn loader_name(
    Segment { offset, length, .. }: Segment,
    size: u64,
    read: &impl Fn(u64, &mut [u8]) -> io::Result<()>,
) -> Result<String, ElfError> {
    // The length comes from the file, and the limit bounds the allocation below.
    if length > LOADER_BYTES_MAX || !within(offset, length, size) {
        return Err(ElfError::Damaged("loader's name lies outside of it"));
    }
    let mut name = vec![0; length as usize];
    read(offset, &mut name)?;
    let end = name.iter().position(|&byte| byte == 0).ok_or(ElfError::Damaged("loader's name has no end"))?;
    name.truncate(end);
    String::from_utf8(name).map_err(|_| ElfError::Damaged("loader's name is no text"))
}

pub(super) fn within(offset: u64, length: u64, size: u64) -> bool {
    offset.checked_add(length).is_some_and(|end| end <= size)
}

/// Reader of fields in the file's word size and byte order.
#[derive(Clone, Copy)]
pub(super) struct ElfReader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) wide: bool,
    pub(super) little: bool,
}

impl<'a> ElfReader<'a> {
    fn of(header: &'a [u8; HEADER_BYTES]) -> Self {
        Self { bytes: header, wide: header[4] == 2, little: header[5] == 1 }
    }

    /// Bytes from `at` on. Callers stay within the structures that were read; outside of them it reads zeros
    /// instead of panicking.
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let field = self.bytes.get(at..at + N).and_then(|field| field.try_into().ok());
        field.unwrap_or([0; N])
    }

    pub(super) fn half(&self, at: usize) -> u16 {
        let bytes = self.array(at);
        if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }
    }

    /// Half word at an offset that depends on the word size.
    fn half2(&self, wide_at: usize, narrow_at: usize) -> u16 {
        self.half(if self.wide { wide_at } else { narrow_at })
    }

    pub(super) fn word(&self, at: usize) -> u32 {
        let bytes = self.array(at);
        if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
    }

    /// Word of the size of an address.
    pub(super) fn address(&self, wide_at: usize, narrow_at: usize) -> u64 {
        if !self.wide {
            return self.word(narrow_at).into();
        }
        let bytes = self.array(wide_at);
        if self.little { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;

    /// Reads from memory as from a file.
    pub(in crate::cluster::executable) fn reader(bytes: &[u8]) -> impl Fn(u64, &mut [u8]) -> io::Result<()> {
        |offset, buffer| {
            let from = offset as usize;
            buffer.copy_from_slice(&bytes[from..from + buffer.len()]);
            Ok(())
        }
    }

    pub(in crate::cluster::executable) fn inspect_bytes(bytes: &[u8]) -> Result<Image, ElfError> {
        inspect(bytes.len() as u64, reader(bytes))
    }

    /// ELF64 program with its header, one or two program headers, and the loader's path.
    pub(in crate::cluster::executable) fn program(machine: u16, loader: Option<&str>) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01\0".to_vec();
        bytes.resize(HEADER_BYTES, 0);
        let segments: u16 = if loader.is_some() { 2 } else { 1 };
        let put = |bytes: &mut Vec<u8>, at: usize, field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
        };
        put(&mut bytes, 16, &3u16.to_le_bytes());
        put(&mut bytes, 18, &machine.to_le_bytes());
        put(&mut bytes, 24, &0x1000u64.to_le_bytes());
        put(&mut bytes, 32, &(HEADER_BYTES as u64).to_le_bytes());
        put(&mut bytes, 54, &56u16.to_le_bytes());
        put(&mut bytes, 56, &segments.to_le_bytes());
        bytes.resize(HEADER_BYTES + 56 * usize::from(segments), 0);
        put(&mut bytes, HEADER_BYTES, &1u32.to_le_bytes());
        if let Some(loader) = loader {
            let (at, offset) = (HEADER_BYTES + 56, bytes.len() as u64);
            put(&mut bytes, at, &PT_INTERP.to_le_bytes());
            put(&mut bytes, at + 8, &offset.to_le_bytes());
            put(&mut bytes, at + 32, &(loader.len() as u64 + 1).to_le_bytes());
            bytes.extend(loader.as_bytes());
            bytes.push(0);
        }
        bytes
    }

    #[track_caller]
    fn refused(bytes: &[u8], part: &str) {
        let text = inspect_bytes(bytes).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }

    #[test]
    fn a_program_names_its_processor_and_its_loader() {
        let image = inspect_bytes(&program(62, Some("/lib64/ld-linux-x86-64.so.2"))).unwrap();
        assert_eq!(image.processor, "x86_64");
        assert_eq!(image.loader.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(
            inspect_bytes(&program(183, None)).unwrap(),
            Image { processor: "aarch64", loader: None, glibc: None }
        );
    }

    #[test]
    fn a_program_of_32_bits_and_one_of_the_other_byte_order_are_read() {
        let mut narrow = b"\x7fELF\x01\x01\x01\0".to_vec();
        narrow.resize(52, 0);
        narrow[16] = 2;
        narrow[18] = 3;
        narrow[25] = 0x10;
        narrow[28] = 52;
        narrow[42] = 32;
        narrow[44] = 1;
        let name = b"/lib/ld-linux.so.2\0";
        for word in [3u32, 84, 0, 0, name.len() as u32, 0, 0, 0] {
            narrow.extend(word.to_le_bytes());
        }
        narrow.extend(name);
        let loader = Some("/lib/ld-linux.so.2".to_owned());
        assert_eq!(inspect_bytes(&narrow).unwrap(), Image { processor: "i686", loader, glibc: None });

        let mut big = b"\x7fELF\x02\x02\x01\0".to_vec();
        big.resize(HEADER_BYTES, 0);
        big[17] = 2;
        big[19] = 22;
        big[31] = 0x10;
        big[39] = 64;
        big[55] = 56;
        assert_eq!(inspect_bytes(&big).unwrap(), Image { processor: "s390x", loader: None, glibc: None });
    }

    #[test]
    fn a_file_that_is_no_program_is_recognised() {
        refused(b"", "no ELF file");
        refused(b"#!/bin/sh\necho hello\n", "no ELF file");
        refused(b"\x7fELF\x02\x01\x01\0", "cut off");
        refused(&program(8, None), "machine 8");
        let mut library = program(62, None);
        library[24..32].fill(0);
        refused(&library, "library");
        let mut object = program(62, None);
        object[16] = 1;
        refused(&object, "library");
        let mut foreign = program(62, None);
        foreign[7] = 9;
        refused(&foreign, "not for Linux");
        let mut senseless = program(62, None);
        senseless[5] = 7;
        refused(&senseless, "mean nothing");
    }

    #[test]
    fn an_offset_outside_of_the_file_is_rejected() {
        let good = program(62, Some("/lib/ld-musl-x86_64.so.1"));
        let with = |at: usize, field: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + field.len()].copy_from_slice(field);
            bytes
        };
        refused(&with(32, &u64::MAX.to_le_bytes()), "table of segments lies outside");
        refused(&with(56, &u16::MAX.to_le_bytes()), "shape");
        refused(&with(54, &3u16.to_le_bytes()), "shape");
        refused(&with(HEADER_BYTES + 56 + 8, &u64::MAX.to_le_bytes()), "name lies outside");
        refused(&with(HEADER_BYTES + 56 + 32, &u64::MAX.to_le_bytes()), "name lies outside");
        refused(&with(HEADER_BYTES + 56 + 32, &3u64.to_le_bytes()), "no end");
        for end in 4..good.len() {
            assert!(inspect_bytes(&good[..end]).is_err(), "cut at {end}");
        }
    }

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = inspect_bytes(&bytes);
        }

        #[test]
        fn no_change_of_a_program_makes_it_panic(
            changes in prop::collection::vec((0..203usize, any::<u8>()), 1..8),
            cut in 0..204usize,
        ) {
            let mut bytes = program(62, Some("/lib64/ld-linux-x86-64.so.2"));
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            bytes.truncate(cut);
            let _ = inspect_bytes(&bytes);
        }
    }
}
