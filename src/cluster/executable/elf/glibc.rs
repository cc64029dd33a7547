//! Versions of glibc that an ELF file needs, or defines.
//!
//! ```text
//!   PT_DYNAMIC: (tag, value) ...                     addresses in memory, mapped to file offsets by PT_LOAD
//!     DT_VERNEED -> libc.so.6 -> GLIBC_2.34 -> GLIBC_2.17      a program: versions that it needs, by library
//!     DT_VERDEF  -> GLIBC_2.2.5 -> ... -> GLIBC_2.36           the library: versions that it defines
//!     DT_STRTAB  -> the names
//! ```
//!
//! The dynamic loader compares the two and refuses to start a program that needs a version which the library lacks.
//! As everywhere in these files, no offset, length or count is trusted.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::str::FromStr;

use super::{ElfError, ElfReader, Segment, within};

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;

const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;
const DT_VERDEF: u64 = 0x6fff_fffc;
const DT_VERDEFNUM: u64 = 0x6fff_fffd;
const DT_VERNEED: u64 = 0x6fff_fffe;
const DT_VERNEEDNUM: u64 = 0x6fff_ffff;

const VER_FLG_WEAK: u16 = 2;

/// Largest dynamic section that is read, in bytes; common ones have some thirty entries of 16 bytes.
const DYNAMIC_BYTES_MAX: u64 = 64 << 10;

/// Most entries of version tables that are read; glibc defines about fifty, a program names a dozen libraries.
const ENTRIES_MAX: u32 = 4096;

/// Bytes of a name that are read; names that matter here are shorter.
const NAME_BYTES_MAX: u64 = 64;

/// Library whose versions are compared; the other libraries of glibc are of the same release.
const LIBRARY: &[u8] = b"libc.so.6";

/// Version of glibc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Glibc {
    major: u16,
    minor: u16,
}

impl Glibc {
    /// Version in a name such as `GLIBC_2.2.5`; `None` for other names.
    fn of_name(name: &[u8]) -> Option<Self> {
        let mut numbers = std::str::from_utf8(name).ok()?.strip_prefix("GLIBC_")?.split('.');
        // A third number is dropped: versions since 2.4 have none.
        let (major, minor) = (numbers.next()?, numbers.next()?);
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Glibc {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (major, minor) = text.split_once('.').ok_or(())?;
        // Digits only: `parse` alone would accept a sign, and a version would have two spellings.
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse().map_err(|_| ()),
            false => Err(()),
        };
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

const OUT_OF_BOUNDS: ElfError = ElfError::Damaged("table of versions leads out of it");

fn step(at: u64, by: u32) -> Result<u64, ElfError> {
    at.checked_add(by.into()).ok_or(OUT_OF_BOUNDS)
}

/// Dynamic section of a file, with what is needed to follow its addresses.
pub(crate) struct DynamicSection<'a, R> {
    header: ElfReader<'a>,
    segments: &'a [Segment],
    size: u64,
    read: &'a R,
    /// Tags and values.
    entries: Vec<(u64, u64)>,
    /// Entries of the tables that may still be read.
    left: Cell<u32>,
}

impl<'a, R: Fn(u64, &mut [u8]) -> io::Result<()>> DynamicSection<'a, R> {
    /// Finds the dynamic section; `None` if the file is statically linked.
    pub(crate) fn find(
        header: ElfReader<'a>,
        segments: &'a [Segment],
        size: u64,
        read: &'a R,
    ) -> Result<Option<Self>, ElfError> {
        let Some(dynamic) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) else {
            return Ok(None);
        };
        if dynamic.length > DYNAMIC_BYTES_MAX || !within(dynamic.offset, dynamic.length, size) {
            return Err(ElfError::Damaged("segment for the loader lies outside of it"));
        }
        let mut bytes = vec![0; dynamic.length as usize];
        read(dynamic.offset, &mut bytes)?;
        let entry = |bytes| {
            let fields = ElfReader { bytes, ..header };
            (fields.address(0, 0), fields.address(8, 4))
        };
        let entries = bytes.chunks_exact(if header.wide { 16 } else { 8 }).map(entry);
        let entries = entries.take_while(|(tag, _)| *tag != 0).collect();
        Ok(Some(Self { header, segments, size, read, entries, left: Cell::new(ENTRIES_MAX) }))
    }

    /// Latest version that a program needs.
    pub(crate) fn needed(&self) -> Result<Option<Glibc>, ElfError> {
        self.latest(DT_VERNEED, DT_VERNEEDNUM, |at| {
            // Elf_Verneed: version u16, count u16, file u32, first version u32, next library u32.
            let library: [u8; 16] = self.bytes(at)?;
            let library = self.fields(&library);
            let next = library.word(12);
            if self.name(library.word(4))? != LIBRARY {
                return Ok((None, next));
            }
            let (mut latest, mut at, count) = (None, step(at, library.word(8))?, library.half(2));
            for _ in 0..count {
                // Elf_Vernaux: hash u32, flags u16, number u16, name u32, next version u32.
                let version: [u8; 16] = self.bytes(at)?;
                let version = self.fields(&version);
                // The loader accepts that a weakly needed version is missing.
                if version.half(4) & VER_FLG_WEAK == 0 {
                    latest = latest.max(Glibc::of_name(&self.name(version.word(8))?));
                }
                at = step(at, version.word(12))?;
            }
            Ok((latest, next))
        })
    }

    /// Latest version that a library defines.
    pub(crate) fn defined(&self) -> Result<Option<Glibc>, ElfError> {
        self.latest(DT_VERDEF, DT_VERDEFNUM, |at| {
            // Elf_Verdef: version u16, flags u16, number u16, count u16, hash u32, first name u32, next version u32.
            // The first name is that of the version itself, the others those it extends.
            let version: [u8; 20] = self.bytes(at)?;
            let version = self.fields(&version);
            let name: [u8; 8] = self.bytes(step(at, version.word(12))?)?;
            let name = self.name(self.fields(&name).word(0))?;
            Ok((Glibc::of_name(&name), version.word(16)))
        })
    }

    fn value(&self, tag: u64) -> Option<u64> {
        self.entries.iter().find(|entry| entry.0 == tag).map(|entry| entry.1)
    }

    /// File offset of an address in memory.
    fn offset(&self, address: u64) -> Result<u64, ElfError> {
        let loaded = self.segments.iter().filter(|segment| segment.kind == PT_LOAD);
        let mut found = loaded.filter_map(|segment| {
            // Only what the file holds: the memory of a segment may be longer, and is zero beyond that.
            let into = address.checked_sub(segment.address).filter(|into| *into < segment.length)?;
            segment.offset.checked_add(into)
        });
        found.next().ok_or(OUT_OF_BOUNDS)
    }

    /// Latest of all versions in a table. `entry` returns the version of one entry and the distance to the next.
    fn latest(
        &self,
        table: u64,
        count: u64,
        entry: impl Fn(u64) -> Result<(Option<Glibc>, u32), ElfError>,
    ) -> Result<Option<Glibc>, ElfError> {
        let count = self.value(count).filter(|count| *count > 0);
        let (Some(table), Some(count)) = (self.value(table), count) else { return Ok(None) };
        let (mut latest, mut at) = (None, self.offset(table)?);
        // `count` comes from the file and may be anything; `bytes` limits the entries that are read.
        for _ in 0..count {
            let (version, next) = entry(at)?;
            latest = latest.max(version);
            at = step(at, next)?;
        }
        Ok(latest)
    }

    fn bytes<const N: usize>(&self, at: u64) -> Result<[u8; N], ElfError> {
        let mut bytes = [0; N];
        if !within(at, N as u64, self.size) {
            return Err(OUT_OF_BOUNDS);
        }
        // The tables are linked lists: a file may link an entry to itself. The budget ends such a walk.
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or(ElfError::Damaged("table of versions is longer than any program's"))?);
        (self.read)(at, &mut bytes)?;
        Ok(bytes)
    }

    fn fields<'b>(&'b self, bytes: &'b [u8]) -> ElfReader<'b> {
        ElfReader { bytes, ..self.header }
    }

    /// Name at an offset in the string table, cut at [`NAME_BYTES_MAX`].
    fn name(&self, at: u32) -> Result<Vec<u8>, ElfError> {
        let (names, length) =
            (self.value(DT_STRTAB).ok_or(OUT_OF_BOUNDS)?, self.value(DT_STRSZ).ok_or(OUT_OF_BOUNDS)?);
        let left = length.checked_sub(at.into()).ok_or(OUT_OF_BOUNDS)?;
        let (from, length) = (step(self.offset(names)?, at)?, left.min(NAME_BYTES_MAX));
        if !within(from, length, self.size) {
            return Err(OUT_OF_BOUNDS);
        }
        let mut name = vec![0; length as usize];
        (self.read)(from, &mut name)?;
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
        Ok(name)
    }
}

#[cfg(test)]
mod tests;
