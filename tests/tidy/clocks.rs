//! Finds the files that read the wall clock, which an operator or a time service may set at any moment.

use crate::source::Code;

/// Files of the library that read it: for certificates, for ids, for the age of keys of calls, and for times that people
/// see.
///
/// No lease, heartbeat, timeout or back-off is among them. The control plane reads it once at its start, and counts on
/// by the monotonic clock.
const READERS: &[&str] = &[
    "src/transport/credentials.rs",
    "src/transport/expiry.rs",
    "src/durable/actor.rs",
    "src/host/entropy.rs",
    "src/host/mod.rs",
    "src/cluster/control_service/mod.rs",
    "src/cluster/driver/heartbeat.rs",
    "src/cluster/daemon/head/ca.rs",
    "src/cluster/daemon/head/reports.rs",
    "src/cluster/daemon/test_ca.rs",
    "src/cluster/daemon/token_rpc_server.rs",
    "src/cluster/host_info.rs",
    "src/cluster/sim/head.rs",
    "src/cluster/worker/statistics.rs",
    "src/cluster/worker/statistics/spans.rs",
];

/// Ways to read it.
const READS: &[&str] = &["SystemTime::now", "UNIX_EPOCH.elapsed", "unix_time()"];

/// Complaint about a file that reads the wall clock, or that is listed and does not.
pub(crate) fn complaint(file: &str, source: &str) -> Option<String> {
    let code = Code::of(source).without_tests();
    let (reads, is_listed) = (READS.iter().any(|read| code.text().contains(read)), READERS.contains(&file));
    match (reads, is_listed) {
        (true, false) => {
            Some(format!("{file}: the wall clock may jump; use `Instant`, or add the file to READERS"))
        }
        (false, true) => Some(format!("{file}: it is in READERS, and does not read the wall clock")),
        _ => None,
    }
}

#[test]
fn a_file_that_reads_the_wall_clock_is_found() {
    assert!(complaint("src/cluster/driver/mod.rs", "fn due() { SystemTime::now(); }").is_some());
    assert!(complaint("src/cluster/driver/mod.rs", "fn due() { Instant::now(); }").is_none());
    assert!(complaint(READERS[0], "fn none() {}").is_some());
}
