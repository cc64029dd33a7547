//! Locations and permissions of the cluster's secrets.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::job::{Job, Order, SpawnOptions};
use super::proc;
use super::test_cluster::{TestCluster, output, text};

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let below = entries.flat_map(|entry| match entry.file_type().unwrap() {
        kind if kind.is_dir() => files_below(&entry.path()),
        kind if kind.is_file() => vec![entry.path()],
        _ => Vec::new(),
    });
    below.collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn secrets_are_only_in_private_files_and_not_in_arguments_environments_or_logs() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    job.spawn("a", SpawnOptions::default());
    job.spawn("kept", SpawnOptions { detached: true, ..SpawnOptions::default() });
    job.does(Order::Print("a".into(), "a line".into(), 3));
    // A rejected token makes the daemons log something.
    let mut wrong = site.roadshow(&["list", "nodes"]);
    wrong.env("ROADSHOW_TOKEN", site.token.to_uppercase().replace("RS1_", "rs1_a"));
    assert!(!output(wrong).status.success());

    // PKCS #8 of a P-256 key: the private number is at bytes 36 to 68, the public key follows it.
    let key = fs::read(site.state().join("authority.key")).unwrap()[36..68].to_vec();
    let token = site.token.strip_prefix("rs1_").unwrap().as_bytes();
    // Only the second half of the token is secret: the first is the digest of the public CA key.
    let secret = &token[token.len() - 30..];
    let processes = site.processes();
    assert!(processes.len() >= 7, "{processes:?}");
    let mut environments = 0;
    for pid in processes {
        let (arguments, environment) = (proc::file(pid, "cmdline"), proc::file(pid, "environ"));
        assert!(!contains(&arguments, secret), "{pid}: {}", text(&arguments));
        assert!(!contains(&environment, secret), "{pid}: {}", text(&arguments));
        environments += usize::from(!environment.is_empty());
    }
    assert!(environments >= 6, "environments could not be read");

    let directories = site.nodes.iter().map(|node| node.session.clone()).chain([site.state()]);
    for directory in directories {
        let mode = fs::metadata(&directory).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", directory.display());
        for file in files_below(&directory) {
            let (path, mode) = (file.display(), fs::metadata(&file).unwrap().mode() & 0o777);
            // Copies of this executable contain no secret, and are too large to search.
            if file.components().any(|part| part.as_os_str() == "executables") {
                continue;
            }
            let bytes = fs::read(&file).unwrap();
            let has_secret = contains(&bytes, secret) || contains(&bytes, &key);
            assert!(!has_secret || mode == 0o600, "{path} has a secret and the mode {mode:o}");
            let may_have = ["token", "authority.key"].iter().any(|name| file.ends_with(name));
            assert!(!has_secret || may_have, "{path} has a secret");
        }
    }
    job.finish();
}
