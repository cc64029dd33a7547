//! Leftovers of earlier jobs: objects of a uid on this machine through which a later job with that uid would meet them.
//!
//! The search covers processes, System V IPC objects, and the first level of the world-writable directories. A deeper
//! entry belongs to one of the first level, unless another user has let the job write there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::cluster::launch::descendants::ProcessTable;

/// World-writable directories.
const SHARED: [&str; 5] = ["/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock"];

/// Tables of the System V IPC objects.
const IPC: [&str; 3] = ["/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg"];

/// Uids that own leftovers.
#[derive(Debug, Default)]
pub(super) struct Leftovers(BTreeSet<u32>);

impl Leftovers {
    pub(super) fn look() -> Self {
        let mut owners = ProcessTable::read().users();
        let directories = SHARED.iter().map(PathBuf::from).chain([std::env::temp_dir()]);
        let entries = directories.filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten();
        // `metadata` of an entry does not follow links: the owner of the link counts.
        owners.extend(entries.filter_map(|entry| Some(entry.metadata().ok()?.uid())));
        // A kernel without System V IPC has no such tables.
        let tables = IPC.iter().filter_map(|table| fs::read_to_string(table).ok());
        owners.extend(tables.flat_map(|table| ipc_owners(&table)));
        Self(owners)
    }

    pub(super) fn are_of(&self, uid: u32) -> bool {
        self.0.contains(&uid)
    }
}

/// Parses owners and creators of IPC objects from a table whose first line names the columns.
fn ipc_owners(table: &str) -> Vec<u32> {
    let mut lines = table.lines();
    let names: Vec<_> = lines.next().unwrap_or_default().split_ascii_whitespace().collect();
    let columns: Vec<_> =
        (0..names.len()).filter(|column| matches!(names[*column], "uid" | "cuid")).collect();
    let owners = lines.flat_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        columns.iter().filter_map(|column| fields.get(*column)?.parse().ok()).collect::<Vec<_>>()
    });
    owners.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipc_owners_and_creators_are_found_by_column_name() {
        let table = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n\
                     1 2 666 1 60001 60002 60003 60004 0 9\n\
                     5 6 666 1 60005 60006 60007 60008 0 9\n";
        assert_eq!(ipc_owners(table), [60001, 60003, 60005, 60007]);
        assert_eq!(ipc_owners(""), [0; 0]);
    }

    #[test]
    fn uid_with_processes_or_temporary_files_is_not_free() {
        let own = rustix::process::geteuid().as_raw();
        assert!(Leftovers::look().are_of(own));
        if !rustix::process::geteuid().is_root() {
            return eprintln!("skipped: only root may give a file to another user");
        }
        let (uid, path) =
            (60_019, std::env::temp_dir().join(format!("roadshow-left-{}", std::process::id())));
        assert!(!Leftovers::look().are_of(uid));
        fs::write(&path, "").unwrap();
        std::os::unix::fs::chown(&path, Some(uid), None).unwrap();
        let is_seen = Leftovers::look().are_of(uid);
        fs::remove_file(&path).unwrap();
        assert!(is_seen);
    }
}
