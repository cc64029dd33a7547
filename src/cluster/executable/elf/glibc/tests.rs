//! Version tables, well formed and malformed.

use std::fs;
use std::path::Path;

use crate::property_tests;
use proptest::prelude::*;

use super::*;
use crate::cluster::executable::elf::tests::{inspect_bytes, program, reader};
use crate::cluster::executable::elf::{inspect, inspect_library};

/// File offset of the crafted sections, and the memory address at which the file claims to be mapped.
const AT: usize = 1024;
const ADDRESS: u64 = 0x40_0000;

fn glibc(text: &str) -> Glibc {
    text.parse().unwrap()
}

/// Prefix of a version that is weakly needed.
const WEAK: &str = "weak ";

/// Version table of a file: the needed versions of each library, or the versions that the file defines.
enum Says<'a> {
    Needs(&'a [(&'a str, &'a [&'a str])]),
    Has(&'a [&'a str]),
}

/// Program with a dynamic section that leads to such a table.
fn with_tables(says: &Says<'_>) -> Vec<u8> {
    let (mut names, mut table, count) = (
        vec![0],
        Vec::new(),
        match says {
            Says::Needs(libraries) => libraries.len(),
            Says::Has(versions) => versions.len(),
        },
    );
    let mut name = |text: &str| {
        let at = names.len() as u32;
        names.extend(text.as_bytes());
        names.push(0);
        at
    };
    let mut put = |halves: &[u16], words: &[u32]| {
        halves.iter().for_each(|half| table.extend(half.to_le_bytes()));
        words.iter().for_each(|word| table.extend(word.to_le_bytes()));
    };
    match says {
        Says::Needs(libraries) => {
            for (library, versions) in *libraries {
                let next = 16 + 16 * versions.len() as u32;
                put(&[1, versions.len() as u16], &[name(library), 16, next]);
                for version in *versions {
                    let strong = version.trim_start_matches(WEAK);
                    let flags = if strong == *version { 0 } else { VER_FLG_WEAK };
                    put(&[], &[0]);
                    put(&[flags, 2], &[name(strong), 16]);
                }
            }
        }
        Says::Has(versions) => {
            for version in *versions {
                put(&[1, 0, 2, 1], &[0, 20, 28]);
                put(&[], &[name(version), 0]);
            }
        }
    }
    let (tag, tag_of_count) = match says {
        Says::Needs(_) => (DT_VERNEED, DT_VERNEEDNUM),
        Says::Has(_) => (DT_VERDEF, DT_VERDEFNUM),
    };
    let names_at = AT + 16 * 6;
    let table_at = names_at + names.len();
    let entries = [
        (1, 1),
        (DT_STRTAB, ADDRESS + names_at as u64),
        (DT_STRSZ, names.len() as u64),
        (tag, ADDRESS + table_at as u64),
        (tag_of_count, count as u64),
        (0, 0),
    ];
    let mut bytes = program(62, Some("/lib64/ld-linux-x86-64.so.2"));
    // Program headers: the first maps the whole file, the second names the loader, the third is the dynamic section.
    let loader = bytes.split_off(64 + 2 * 56);
    bytes.resize(64 + 3 * 56, 0);
    bytes[56] = 3;
    let mut segment = |at: usize, kind: u32, offset: u64, address: u64, length: u64| {
        let at = 64 + 56 * at;
        bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        bytes[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
        bytes[at + 16..at + 24].copy_from_slice(&address.to_le_bytes());
        bytes[at + 32..at + 40].copy_from_slice(&length.to_le_bytes());
    };
    let end = table_at + table.len();
    segment(0, PT_LOAD, 0, ADDRESS, end as u64);
    segment(1, 3, 64 + 3 * 56, 0, loader.len() as u64);
    segment(2, PT_DYNAMIC, AT as u64, ADDRESS + AT as u64, 16 * 6);
    bytes.extend(loader);
    bytes.resize(AT, 0);
    for (tag, value) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    [bytes, names, table].concat()
}

const NEEDS: Says<'static> = Says::Needs(&[
    ("libgcc_s.so.1", &["GCC_3.0", "GLIBC_9.9"]),
    ("libc.so.6", &["GLIBC_2.9", "GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_ABI_DT_RELR"]),
    ("libm.so.6", &["GLIBC_2.29"]),
]);

fn defined_by(bytes: &[u8]) -> Result<Option<Glibc>, ElfError> {
    inspect_library(bytes.len() as u64, reader(bytes))
}

#[test]
fn a_program_needs_the_latest_version_of_the_c_library_that_it_names() {
    assert_eq!(inspect_bytes(&with_tables(&NEEDS)).unwrap().glibc, Some(glibc("2.34")));
    let others = Says::Needs(&[("libother.so.1", &["GLIBC_2.9"])]);
    assert_eq!(inspect_bytes(&with_tables(&others)).unwrap().glibc, None);
    let weakly = Says::Needs(&[("libc.so.6", &["GLIBC_2.17", "weak GLIBC_2.38"])]);
    assert_eq!(inspect_bytes(&with_tables(&weakly)).unwrap().glibc, Some(glibc("2.17")));
    assert_eq!(inspect_bytes(&with_tables(&Says::Needs(&[]))).unwrap().glibc, None);
    assert_eq!(inspect_bytes(&program(62, None)).unwrap().glibc, None);
}

#[test]
fn a_library_has_the_latest_version_that_it_defines() {
    let has = Says::Has(&["libc.so.6", "GLIBC_2.2.5", "GLIBC_2.36", "GLIBC_2.4", "GLIBC_PRIVATE"]);
    assert_eq!(defined_by(&with_tables(&has)).unwrap(), Some(glibc("2.36")));
    assert_eq!(defined_by(&with_tables(&NEEDS)).unwrap(), None);
}

#[test]
fn tables_that_leave_the_file_or_form_a_cycle_are_rejected() {
    let good = with_tables(&NEEDS);
    let with = |at: usize, field: u64| {
        let mut bytes = good.clone();
        bytes[at..at + 8].copy_from_slice(&field.to_le_bytes());
        inspect_bytes(&bytes).unwrap_err().to_string()
    };
    let entry = |number: usize| AT + 16 * number + 8;
    assert!(with(entry(1), 0).contains("leads out"));
    assert!(with(entry(2), 3).contains("leads out"));
    assert!(with(entry(3), u64::MAX).contains("leads out"));
    assert!(with(entry(4), u64::MAX).contains("leads out"));
    let dynamic = 64 + 2 * 56;
    assert!(with(dynamic + 8, u64::MAX).contains("segment for the loader lies outside"));
    assert!(with(dynamic + 32, u64::MAX).contains("segment for the loader lies outside"));
    // The first library links to itself.
    let mut round = good.clone();
    let table = good.len() - (3 * 16 + 7 * 16);
    round[table + 12..table + 16].fill(0);
    round[entry(4)..entry(4) + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(inspect_bytes(&round).unwrap_err().to_string().contains("longer than any program's"));
}

#[test]
fn this_program_needs_no_later_glibc_than_this_machine_has() {
    let bytes = fs::read("/proc/self/exe").unwrap();
    let image = inspect(bytes.len() as u64, reader(&bytes)).unwrap();
    let Some(loader) = image.loader.filter(|loader| loader.contains("ld-linux")) else { return };
    let library = fs::canonicalize(loader).unwrap().with_file_name("libc.so.6");
    if !Path::new(&library).exists() {
        return;
    }
    let has = defined_by(&fs::read(library).unwrap()).unwrap().unwrap();
    let needs = image.glibc.unwrap();
    println!("this program needs glibc {needs}, and this machine has {has}");
    assert!(glibc("2.2") < needs && needs <= has);
}

proptest! {
    #![proptest_config(property_tests::default_cases())]

    #[test]
    fn no_change_of_the_tables_makes_it_panic(
        changes in prop::collection::vec((0..AT + 400, any::<u8>()), 1..8),
        cut in 0..AT + 400,
    ) {
        let mut bytes = with_tables(&NEEDS);
        for (at, byte) in changes {
            if let Some(there) = bytes.get_mut(at) {
                *there = byte;
            }
        }
        let _ = (inspect_bytes(&bytes), defined_by(&bytes));
        bytes.truncate(cut);
        let _ = (inspect_bytes(&bytes), defined_by(&bytes));
    }
}
