//! Which versions of glibc an ELF file needs, or has.
//!
//! A program that is linked with glibc names for each library the versions whose functions it uses, and the
//! library names those that it has: `GLIBC_2.34`. The loader compares them, and starts no program that needs
//! one which is not there. Both tables are found through the segment for the loader, by their addresses in
//! memory. As everywhere with these files, no offset, length or count is believed.

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

/// A segment for the loader has some thirty entries of 16 bytes.
const DYNAMIC_BYTES_MAX: u64 = 64 << 10;

/// How much of a table is read: glibc has some fifty versions, and a program a dozen libraries.
const ENTRIES_MAX: u32 = 4096;

/// No name that matters here is longer.
const NAME_BYTES_MAX: u64 = 64;

/// The library whose versions are looked at; the others of glibc are of the same release.
const LIBRARY: &[u8] = b"libc.so.6";

/// A version of glibc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Glibc {
    major: u16,
    minor: u16,
}

impl Glibc {
    /// The version that a name in one of the tables means, such as `GLIBC_2.2.5`; of others there is none.
    fn of_name(name: &[u8]) -> Option<Self> {
        let mut numbers = std::str::from_utf8(name).ok()?.strip_prefix("GLIBC_")?.split('.');
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

/// What the loader looks at, and the file that it is in.
pub(crate) struct DynamicSection<'a, R> {
    header: ElfReader<'a>,
    segments: &'a [Segment],
    size: u64,
    read: &'a R,
    /// Tags and values.
    entries: Vec<(u64, u64)>,
    /// How much more is read of the tables.
    left: Cell<u32>,
}

impl<'a, R: Fn(u64, &mut [u8]) -> io::Result<()>> DynamicSection<'a, R> {
    /// Nothing if the file has none: then it is linked statically.
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

    /// The latest version that a program needs.
    pub(crate) fn needed(&self) -> Result<Option<Glibc>, ElfError> {
        self.latest(DT_VERNEED, DT_VERNEEDNUM, |at| {
            // Version 2, count 2, file 4, first version 4, next library 4.
            let library: [u8; 16] = self.bytes(at)?;
            let library = self.fields(&library);
            let next = library.word(12);
            if self.name(library.word(4))? != LIBRARY {
                return Ok((None, next));
            }
            let (mut latest, mut at, count) = (None, step(at, library.word(8))?, library.half(2));
            for _ in 0..count {
                // Hash 4, flags 2, number 2, name 4, next version 4.
                let version: [u8; 16] = self.bytes(at)?;
                let version = self.fields(&version);
                // One that is only weakly needed may be missing.
                if version.half(4) & VER_FLG_WEAK == 0 {
                    latest = latest.max(Glibc::of_name(&self.name(version.word(8))?));
                }
                at = step(at, version.word(12))?;
            }
            Ok((latest, next))
        })
    }

    /// The latest version that a library has.
    pub(crate) fn defined(&self) -> Result<Option<Glibc>, ElfError> {
        self.latest(DT_VERDEF, DT_VERDEFNUM, |at| {
            // Version 2, flags 2, number 2, count 2, hash 4, first name 4, next version 4. The first name is its own.
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

    /// Where in the file an address of memory is.
    fn offset(&self, address: u64) -> Result<u64, ElfError> {
        let loaded = self.segments.iter().filter(|segment| segment.kind == PT_LOAD);
        let mut found = loaded.filter_map(|segment| {
            let into = address.checked_sub(segment.address).filter(|into| *into < segment.length)?;
            segment.offset.checked_add(into)
        });
        found.next().ok_or(OUT_OF_BOUNDS)
    }

    /// The latest of all versions of a table. `entry` gives that of one entry, and how far the next is.
    fn latest(
        &self,
        table: u64,
        count: u64,
        entry: impl Fn(u64) -> Result<(Option<Glibc>, u32), ElfError>,
    ) -> Result<Option<Glibc>, ElfError> {
        let count = self.value(count).filter(|count| *count > 0);
        let (Some(table), Some(count)) = (self.value(table), count) else { return Ok(None) };
        let (mut latest, mut at) = (None, self.offset(table)?);
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
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or(ElfError::Damaged("table of versions is longer than any program's"))?);
        (self.read)(at, &mut bytes)?;
        Ok(bytes)
    }

    fn fields<'b>(&'b self, bytes: &'b [u8]) -> ElfReader<'b> {
        ElfReader { bytes, ..self.header }
    }

    /// The name that stands so far behind the beginning of all names; of a longer one its beginning.
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
