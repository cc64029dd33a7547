//! The users that a node's jobs run as: how they are named, and what this machine must allow for it.

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

/// The users that workers and submitted drivers of a node run as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobUsers {
    /// The agent's own.
    #[default]
    Agent,
    /// One for all jobs.
    One(JobUser),
    /// One for each job, as long as it runs on the node.
    EachJob(UidRange),
}

/// A user of this machine, with its primary group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobUser {
    /// Its name.
    pub name: String,
    /// Its id.
    pub uid: u32,
    /// The id of its group.
    pub gid: u32,
    /// Its home directory.
    pub home: PathBuf,
}

/// Ids of users, and of groups with the same numbers, that belong to jobs alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UidRange {
    first: u32,
    last: u32,
}

/// Jobs cannot run as those users here.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JobUsersError {
    /// The machine does not know the user.
    #[error(
        "there is no user {name:?} on this machine; create it (`useradd --system {name}`), or name another"
    )]
    Unknown {
        /// As it was given.
        name: String,
    },
    /// The machine cannot say.
    #[error("the user {name:?} cannot be looked up: {why}; see whether `getent passwd {name}` works")]
    Database {
        /// As it was given.
        name: String,
        /// The operating system's words.
        why: String,
    },
    /// The user may do everything.
    #[error("{name:?} is root, from which nothing is protected; name a user that owns nothing else")]
    Root {
        /// As it was given.
        name: String,
    },
    /// The range is none.
    #[error(
        "it must be two uids, such as 60000-60999: the first at least 1, the last at most 4294967294 and not before the \
         first, {WORKER_UIDS_MAX} uids at most"
    )]
    Range,
    /// The process is not root.
    #[error(
        "only root can start jobs as other users, and this is the user {uid}; run `roadshow start` as root, or leave \
         out --worker-user and --worker-uids"
    )]
    NotRoot {
        /// The user of this process.
        uid: u32,
    },
    /// Root has lost the rights that are needed, as in a container.
    #[error(
        "root lacks {missing} here, which it takes to start jobs as other users and to end them; let the container or \
         unit keep them, or leave out --worker-user and --worker-uids"
    )]
    Capabilities {
        /// Which, by their names.
        missing: String,
    },
    /// Links of the node would have no certificates.
    #[error(
        "at {host} processes of the cluster have no certificates, so a job could pass itself off as the head whatever user \
         it runs as; give {option} an address that is not of the loopback interface"
    )]
    Loopback {
        /// Where the node would be reached, or its head.
        host: IpAddr,
        /// The option that gives this address.
        option: &'static str,
    },
    /// Jobs could not get at their own files.
    #[error(
        "users other than root cannot enter {}, and jobs have their files below it; `chmod o+x` it, or give a \
         --session-dir or TMPDIR elsewhere", dir.display()
    )]
    Closed {
        /// Which directory.
        dir: PathBuf,
    },
}

impl JobUser {
    /// The user of that name, or of that id, as the machine's user database has it.
    ///
    /// # Errors
    ///
    /// [`JobUsersError`] if there is none, or it is root.
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
    /// From the first to the last, both included.
    ///
    /// # Errors
    ///
    /// [`JobUsersError::Range`] if they are none, more than [`WORKER_UIDS_MAX`], or root is one of them.
    pub fn new(first: u32, last: u32) -> Result<Self, JobUsersError> {
        // The last number of all stands for no user in system calls.
        let is_range = first > 0 && last >= first && last < u32::MAX && last - first < WORKER_UIDS_MAX;
        is_range.then_some(Self { first, last }).ok_or(JobUsersError::Range)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.last - self.first + 1
    }

    /// All of them once, the one behind `last` first.
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
    /// Checks that this process may start jobs as these users, and that a node at `host` is protected from them, whose
    /// head is at one of `heads`. The head's own node has none.
    ///
    /// # Errors
    ///
    /// [`JobUsersError`] says what is missing.
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
        // With capabilities alone the supplementary groups of this process would stay.
        if !(getuid().is_root() && geteuid().is_root()) {
            return Err(JobUsersError::NotRoot { uid: geteuid().as_raw() });
        }
        match missing_capabilities() {
            missing if missing.is_empty() => Ok(()),
            missing => Err(JobUsersError::Capabilities { missing }),
        }
    }

    /// Checks that these users can enter the directories above that of a session.
    ///
    /// # Errors
    ///
    /// [`JobUsersError::Closed`] names one that they cannot.
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

/// Checks that links between a node and its head have certificates.
fn check_certified(host: IpAddr, heads: &[SocketAddr]) -> Result<(), JobUsersError> {
    let heads = heads.iter().map(|head| (head.ip(), "--address"));
    // The heads first: a node at a loopback address may have it from the way to them.
    let plain = heads.chain([(host, "--host")]).find(|(address, _)| {
        // To connect to the unspecified address is to connect to this machine, over the loopback interface.
        let address = address.to_canonical();
        address.is_loopback() || address.is_unspecified()
    });
    match plain {
        Some((host, option)) => Err(JobUsersError::Loopback { host, option }),
        None => Ok(()),
    }
}

/// The permission of others to enter a directory.
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

/// Whether the machine's user database has a user, or a group, of this number.
pub(in crate::cluster) fn is_known(uid: u32) -> bool {
    User::from_uid(Uid::from_raw(uid)).is_ok_and(|user| user.is_some())
        || Group::from_gid(Gid::from_raw(uid)).is_ok_and(|group| group.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_a_bounded_number_of_uids_and_not_root() {
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
    fn uids_are_gone_round_so_that_one_is_used_again_as_late_as_possible() {
        let range = UidRange::new(5, 8).unwrap();
        let from = |last| range.round_from(last).collect::<Vec<_>>();
        assert_eq!(from(None), [5, 6, 7, 8]);
        assert_eq!(from(Some(6)), [7, 8, 5, 6]);
        assert_eq!(from(Some(8)), [5, 6, 7, 8]);
        assert_eq!(from(Some(4)), [5, 6, 7, 8]);
    }

    #[test]
    fn users_are_those_of_the_machine_and_never_root() {
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
    fn a_node_whose_head_is_reached_over_loopback_is_refused_with_the_option_to_change() {
        let host = "192.0.2.1".parse().unwrap();
        let refused = |heads: &[&str]| {
            let heads: Vec<SocketAddr> = heads.iter().map(|head| head.parse().unwrap()).collect();
            check_certified(host, &heads)
        };
        refused(&["192.0.2.1:6379", "[2001:db8::1]:6379"]).unwrap();
        for head in
            ["127.0.0.1:6379", "127.0.1.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "0.0.0.0:1", "[::]:1"]
        {
            // Each address that a name stands for is tried by the agent.
            for heads in [&[head][..], &["192.0.2.2:6379", head]] {
                let error = refused(heads).unwrap_err();
                assert!(matches!(error, JobUsersError::Loopback { option: "--address", .. }), "{error}");
                assert!(error.to_string().contains("give --address an address"), "{error}");
            }
        }
    }

    #[test]
    fn a_directory_above_the_session_that_others_cannot_enter_is_named() {
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
