//! Names of logs and of their files. A name from a peer is accepted only if it could be one of these.

use std::fmt;

use crate::cluster::model::{JobId, WorkerId};
use crate::cluster::protocol::Stream;

/// Process that a log belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LogName {
    /// A worker.
    Worker {
        /// Id of the worker.
        worker: WorkerId,
        /// Job that the worker belongs to.
        job: JobId,
        /// Pid of the worker.
        pid: u32,
    },
    /// The driver of a submitted job.
    Driver {
        /// Id of the job.
        job: JobId,
        /// Pid of the driver.
        pid: u32,
    },
}

impl LogName {
    /// File name of one stream's log.
    pub(crate) fn file(self, stream: Stream) -> String {
        let end = match stream {
            Stream::Out => "out",
            Stream::Err => "err",
        };
        format!("{self}.{end}")
    }

    /// Process that a log of this name belongs to; `None` for other logs, such as `agent.log`.
    pub(in crate::cluster) fn of_file(file: &str) -> Option<Self> {
        let (name, _) = file.rsplit_once('.')?;
        let mut parts = name.split('-');
        let named = match parts.next()? {
            "worker" => Self::Worker {
                worker: parts.next()?.parse().ok()?,
                job: parts.next()?.parse().ok()?,
                pid: parts.next()?.parse().ok()?,
            },
            "driver" => Self::Driver { job: parts.next()?.parse().ok()?, pid: parts.next()?.parse().ok()? },
            _ => return None,
        };
        parts.next().is_none().then_some(named)
    }

    pub(in crate::cluster) fn worker(self) -> Option<WorkerId> {
        match self {
            Self::Worker { worker, .. } => Some(worker),
            Self::Driver { .. } => None,
        }
    }

    pub(in crate::cluster) fn job(self) -> JobId {
        match self {
            Self::Worker { job, .. } | Self::Driver { job, .. } => job,
        }
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker { worker, job, pid } => write!(f, "worker-{worker}-{job}-{pid}"),
            Self::Driver { job, pid } => write!(f, "driver-{job}-{pid}"),
        }
    }
}

/// Log that a file is a part of, and the number of the part if it was rotated.
pub(in crate::cluster) fn part_of(file: &str) -> Option<(&str, Option<u64>)> {
    if is_log(file) {
        return Some((file, None));
    }
    let (log, number) = file.rsplit_once('.')?;
    // Exactly the numbers that rotation writes: no sign, no leading zero.
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
    let number = number.parse().ok().filter(|_| is_number)?;
    is_log(log).then_some((log, Some(number)))
}

/// Reports that a log may have this name. No such name leads out of a directory.
pub(in crate::cluster) fn is_log(file: &str) -> bool {
    let Some((name, end)) = file.rsplit_once('.') else { return false };
    // Neither dots nor slashes, so `..` and paths are excluded.
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    matches!(end, "out" | "err" | "log") && !name.is_empty() && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use crate::property_tests;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_identifies_the_process_of_a_log() {
        let worker = LogName::Worker { worker: WorkerId(0xab), job: JobId(7), pid: 4711 };
        assert_eq!(worker.file(Stream::Out), "worker-00000000000000ab-00000007-4711.out");
        let driver = LogName::Driver { job: JobId(7), pid: 12 };
        assert_eq!(driver.file(Stream::Err), "driver-00000007-12.err");
        for name in [worker, driver] {
            assert_eq!(LogName::of_file(&name.file(Stream::Err)), Some(name));
        }
        for other in ["agent.log", "worker-1.out", "worker-1-2-3-4.out", "driver-x-1.out", "worker"] {
            assert_eq!(LogName::of_file(other), None, "{other}");
        }
    }

    #[test]
    fn names_of_other_files_are_rejected() {
        assert_eq!(part_of("agent.log"), Some(("agent.log", None)));
        assert_eq!(part_of("worker-1-2-3.out.12"), Some(("worker-1-2-3.out", Some(12))));
        for other in
            ["", ".", "..", "a", ".log", "a.txt", "../a.log", "a/b.log", "a.log.", "a.log.0", "a.log.01"]
        {
            assert_eq!(part_of(other), None, "{other}");
        }
        for other in ["a.log.+1", "a.log.1.2", "a.log.99999999999999999999", "a\0.log", "a b.log"] {
            assert_eq!(part_of(other), None, "{other}");
        }
    }

    proptest! {
        #![proptest_config(property_tests::default_cases())]

        #[test]
        fn no_log_has_a_name_like_a_path(name in ".*") {
            prop_assert!(!is_log(&name) || !(name.contains('/') || name.contains("..") || name.contains('\0')));
        }
    }
}
