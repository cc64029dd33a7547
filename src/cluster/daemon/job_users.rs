//! Users that a node's jobs run as: their configuration, and the checks of what this machine allows.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::unistd::{Gid, Group, Uid, User};
use rustix::process::{geteuid, getuid};
use rustix::thread::{CapabilitySet, capabilities};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::WORKER_UIDS_MAX;

/// Users that the workers and submitted drivers of a node run as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobUsers {
    /// The agent's own user.
    #[default]
    Agent,
    /// A single user for all jobs.
    One(JobUser),
    /// A separate user for each job, for as long as the job runs on the node.
    EachJob(UidRange),
}

/// User of this machine, with its primary group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobUser {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Id of the primary group.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
}

/// Range of user ids, and of group ids with the same numbers, that are reserved for jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UidRange {
    first: u32,
    last: u32,
}

/// Reason that jobs cannot run as other users here.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JobUsersError {
    /// The machine does not know the user.
    #[error(
        "there is no user {name:?} on this machine; create it (`useradd --system {name}`), or name another"
    )]
    Unknown {
        /// Requested name.
        name: String,
    },
    /// The user database of the machine does not answer.
    #[error("cannot look up the user {name:?}: {why}; check that `getent passwd {name}` works")]
    Database {
        /// Requested name.
        name: String,
        /// Error of the operating system.
        why: String,
    },
    /// The user is root.
    #[error("{name:?} is root, which has all rights; name a user that owns nothing else")]
    Root {
        /// Requested name.
        name: String,
    },
    /// The range is malformed, empty or too large.
    #[error(
        "it must be two uids, such as 60000-60999: the first at least 1, the last at most 4294967294 and not before the \
         first, {WORKER_UIDS_MAX} uids at most"
    )]
    Range,
    /// The process does not run as root.
    #[error(
        "only root can start jobs as other users, and this is the user {uid}; run `roadshow start` as root, or leave \
         out --worker-user and --worker-uids"
    )]
    NotRoot {
        /// User of this process.
        uid: u32,
    },
    /// Root lacks capabilities that are needed, as in a container.
    #[error(
        "root lacks {missing} here, which are needed to start jobs as other users and to stop them; let the container or \
         unit keep them, or leave out --worker-user and --worker-uids"
    )]
    Capabilities {
        /// Names of the missing capabilities.
        missing: String,
    },
    /// Links of the node would have no certificates.
    #[error(
        "at {host} processes of the cluster have no certificates, so a job could impersonate the head whatever user \
         it runs as; give {option} an address that is not of the loopback interface"
    )]
    Loopback {
        /// Address of the node or of its head.
        host: IpAddr,
        /// Option that sets this address.
        option: &'static str,
    },
    /// Jobs could not access their own files.
    #[error(
        "users other than root cannot enter {}, and jobs have their files below it; `chmod o+x` it, or give a \
         --session-dir or TMPDIR elsewhere", dir.display()
    )]
    Closed {
        /// Directory that other users cannot enter.
        dir: PathBuf,
    },
}

impl JobUser {
    /// Looks up a user by name, or by id, in the machine's user database.
    ///
    /// # Errors
    ///
    /// [`JobUsersError`] if the user does not exist, or is root.
    pub fn named(name: &str) -> Result<Self, JobUsersError> {
        let failed = |errno: nix::Error| JobUsersError::Database {
            name: name.to_owned(),
            why: errno.desc().to_owned(),
        };
        let by_id = || name.parse().map_or(Ok(None), |uid| User::from_uid(Uid::from_raw(uid)));
        let found = match User::from_name(name).map_err(failed)? {
            Some(user) => Some(user),
            None => by_id().map_err(failed)?,
        };
        let user = found.ok_or_else(|| JobUsersError::Unknown { name: name.to_owned() })?;
        if user.uid.is_root() || user.gid.as_raw() == 0 {
            return Err(JobUsersError::Root { name: name.to_owned() });
        }
        Ok(Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), home: user.dir })
    }
}

impl UidRange {
    /// Creates the range from `first` to `last`, both included.
    ///
    /// # Errors
    ///
    /// [`JobUsersError::Range`] if the range is empty, contains root, or exceeds [`WORKER_UIDS_MAX`].
    pub fn new(first: u32, last: u32) -> Result<Self, JobUsersError> {
        // System calls such as `chown` take the largest number for "no change".
        let is_range = first > 0 && last >= first && last < u32::MAX && last - first < WORKER_UIDS_MAX;
        is_range.then_some(Self { first, last }).ok_or(JobUsersError::Range)
    }

    /// Number of uids in the range.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.last - self.first + 1
    }

    /// Iterates over all uids once, starting behind `last`.
    pub(in crate::cluster) fn round_from(&self, last: Option<u32>) -> impl Iterator<Item = u32> + use<> {
        let next =
            last.filter(|last| (self.first..self.last).contains(last)).map_or(self.first, |last| last + 1);
        (next..=self.last).chain(self.first..next)
    }
}

impl fmt::Display for UidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for UidRange {
    type Err = JobUsersError;

    fn from_str(text: &str) -> Result<Self, JobUsersError> {
        let (first, last) = text.split_once('-').ok_or(JobUsersError::Range)?;
        let uid = |text: &str| text.trim().parse().map_err(|_| JobUsersError::Range);
        Self::new(uid(first)?, uid(last)?)
    }
}

impl JobUsers {
    /// Checks that this process may start jobs as these users, and that the node is protected from them.
    ///
    /// `host` is the node's own address, and `heads` are those of its head; the head's own node has none.
    ///
    /// # Errors
    ///
    /// [`JobUsersError`] names the missing precondition.
    pub fn check(&self, host: IpAddr, heads: &[SocketAddr]) -> Result<(), JobUsersError> {
        match self {
            Self::Agent => return Ok(()),
            Self::One(user) if user.uid == 0 || user.gid == 0 => {
                return Err(JobUsersError::Root { name: user.name.clone() });
            }
            Self::One(_) => {}
            Self::EachJob(UidRange { first, last }) => {
                UidRange::new(*first, *last)?;
            }
        }
        check_certified(host, heads)?;
        // A process with the capabilities alone could not drop its supplementary groups.
        if !(getuid().is_root() && geteuid().is_root()) {
            return Err(JobUsersError::NotRoot { uid: geteuid().as_raw() });
        }
        match missing_capabilities() {
            missing if missing.is_empty() => Ok(()),
            missing => Err(JobUsersError::Capabilities { missing }),
        }
    }

    /// Checks that these users can enter the directories above a session directory.
    ///
    /// # Errors
    ///
    /// [`JobUsersError::Closed`] names the first directory that they cannot enter.
    pub fn check_above(&self, session_dir: &Path) -> Result<(), JobUsersError> {
        if *self == Self::Agent {
            return Ok(());
        }
        let is_open = |dir: &Path| dir.metadata().is_ok_and(|found| found.mode() & OTHERS_ENTER != 0);
        match session_dir.ancestors().skip(1).find(|dir| !is_open(dir)) {
            Some(dir) => Err(JobUsersError::Closed { dir: dir.to_owned() }),
            None => Ok(()),
        }
    }
}

/// Checks that the links between a node and its head have certificates, which plain loopback links do not.
fn check_certified(host: IpAddr, heads: &[SocketAddr]) -> Result<(), JobUsersError> {
    let heads = heads.iter().map(|head| (head.ip(), "--address"));
    // The heads first: the node's own address may be derived from the route to them, so theirs is the cause.
    let plain = heads.chain([(host, "--host")]).find(|(address, _)| {
        // A connection to the unspecified address reaches this machine, over the loopback interface.
        let address = address.to_canonical();
        address.is_loopback() || address.is_unspecified()
    });
    match plain {
        Some((host, option)) => Err(JobUsersError::Loopback { host, option }),
        None => Ok(()),
    }
}

/// Mode bit that lets other users enter a directory.
const OTHERS_ENTER: u32 = 0o001;

fn missing_capabilities() -> String {
    const NEEDED: [(CapabilitySet, &str); 5] = [
        (CapabilitySet::SETUID, "CAP_SETUID"),
        (CapabilitySet::SETGID, "CAP_SETGID"),
        (CapabilitySet::KILL, "CAP_KILL"),
        (CapabilitySet::CHOWN, "CAP_CHOWN"),
        (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    ];
    let has = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let missing = NEEDED.iter().filter(|(needed, _)| !has.contains(*needed)).map(|(_, name)| *name);
    missing.collect::<Vec<_>>().join(", ")
}

/// Returns true if the machine has a user or a group with this id.
pub(in crate::cluster) fn is_known(uid: u32) -> bool {
    User::from_uid(Uid::from_raw(uid)).is_ok_and(|user| user.is_some())
        || Group::from_gid(Gid::from_raw(uid)).is_ok_and(|group| group.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_is_bounded_and_excludes_root() {
        let range: UidRange = "60000-60009".parse().unwrap();
        assert_eq!((range.count(), range.to_string()), (10, "60000-60009".to_owned()));
        assert_eq!("7-7".parse::<UidRange>().unwrap().count(), 1);
        let all = format!("1-{WORKER_UIDS_MAX}");
        assert_eq!(all.parse::<UidRange>().unwrap().count(), WORKER_UIDS_MAX);
        let too_many = format!("1-{}", WORKER_UIDS_MAX + 1);
        for text in ["0-5", "5-4", "5", "-", "a-b", "4294967290-4294967295", "1--2", &too_many] {
            assert!(matches!(text.parse::<UidRange>(), Err(JobUsersError::Range)), "{text}");
        }
    }

    #[test]
    fn uids_are_reused_as_late_as_possible() {
        let range = UidRange::new(5, 8).unwrap();
        let from = |last| range.round_from(last).collect::<Vec<_>>();
        assert_eq!(from(None), [5, 6, 7, 8]);
        assert_eq!(from(Some(6)), [7, 8, 5, 6]);
        assert_eq!(from(Some(8)), [5, 6, 7, 8]);
        assert_eq!(from(Some(4)), [5, 6, 7, 8]);
    }

    #[test]
    fn root_and_unknown_users_are_refused() {
        assert!(matches!(JobUser::named("no user of this name"), Err(JobUsersError::Unknown { .. })));
        for root in ["root", "0"] {
            assert!(matches!(JobUser::named(root), Err(JobUsersError::Root { .. })), "{root}");
        }
        let each = JobUsers::EachJob(UidRange::new(60_000, 60_009).unwrap());
        let loopback = each.check("127.0.0.1".parse().unwrap(), &[]).unwrap_err().to_string();
        assert!(loopback.contains("--host"), "{loopback}");
        assert!(JobUsers::Agent.check("127.0.0.1".parse().unwrap(), &[]).is_ok());
        assert!(is_known(0));
    }

    #[test]
    fn node_whose_head_has_a_loopback_address_is_refused_with_the_option_to_change() {
        let host = "192.0.2.1".parse().unwrap();
        let refused = |heads: &[&str]| {
            let heads: Vec<SocketAddr> = heads.iter().map(|head| head.parse().unwrap()).collect();
            check_certified(host, &heads)
        };
        refused(&["192.0.2.1:6379", "[2001:db8::1]:6379"]).unwrap();
        for head in
            ["127.0.0.1:6379", "127.0.1.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "0.0.0.0:1", "[::]:1"]
        {
            // The agent tries each address of a name, so one loopback address is enough to be refused.
            for heads in [&[head][..], &["192.0.2.2:6379", head]] {
                let error = refused(heads).unwrap_err();
                assert!(matches!(error, JobUsersError::Loopback { option: "--address", .. }), "{error}");
                assert!(error.to_string().contains("give --address an address"), "{error}");
            }
        }
    }

    #[test]
    fn closed_directory_above_the_session_is_named() {
        use std::os::unix::fs::PermissionsExt;

        let scratch = crate::cluster::test_dir::TestDir::new();
        let (closed, session) = (scratch.join("closed"), scratch.join("closed/open/session"));
        std::fs::create_dir_all(&session).unwrap();
        let each = JobUsers::EachJob(UidRange::new(60_000, 60_009).unwrap());
        each.check_above(&session).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        let error = each.check_above(&session).unwrap_err();
        assert!(matches!(&error, JobUsersError::Closed { dir } if *dir == closed), "{error}");
        JobUsers::Agent.check_above(&session).unwrap();
    }
}
