//! User and group that a process is started as.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use rustix::thread::set_no_new_privs;

/// Stack size of the thread that starts a process.
const STACK_BYTES: usize = 128 << 10;

/// User and group of a process, which gets no supplementary groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UserIds {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl UserIds {
    /// Makes a command run as this user.
    ///
    /// The standard library sets the group, drops the supplementary groups, and sets the user, in this order. It
    /// drops the groups only if the real user is root. All this happens before it enters the working directory.
    pub(crate) fn set(self, command: &mut Command) -> &mut Command {
        command.uid(self.uid).gid(self.gid)
    }

    /// Runs `spawn`, which starts a process, so that no program of that process can gain privileges: setuid bits
    /// and file capabilities have no effect in it.
    ///
    /// `no_new_privs` cannot be undone and is inherited by the forked child from the forking thread. It is set on a
    /// thread that ends afterwards, so this process keeps its privileges.
    pub(crate) fn start<C: Send>(self, spawn: impl FnOnce() -> io::Result<C> + Send) -> io::Result<C> {
        let start = || set_no_new_privs(true).map_err(io::Error::from).and_then(|()| spawn());
        thread::scope(|scope| {
            let starting = thread::Builder::new().name("roadshow-start".to_owned()).stack_size(STACK_BYTES);
            let started = starting.spawn_scoped(scope, start)?.join();
            // The scope has joined the thread: its flag cannot leak to anything this process does later.
            started.unwrap_or_else(|_| Err(io::Error::other("the thread that starts a process panicked")))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::process::geteuid;

    use super::*;

    #[test]
    fn a_process_of_another_user_has_only_its_ids_and_gains_no_privileges() {
        if !geteuid().is_root() {
            return eprintln!("skipped: only root may start a process as another user");
        }
        let user = UserIds { uid: 60_017, gid: 60_018 };
        let mut command = Command::new("cat");
        command.arg("/proc/self/status");
        let output = user.start(|| user.set(&mut command).output()).unwrap();
        let status = String::from_utf8(output.stdout).unwrap();
        let line = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(line("Uid:"), ["60017"; 4]);
        assert_eq!(line("Gid:"), ["60018"; 4]);
        assert_eq!(line("Groups:"), [""; 0]);
        assert_eq!(line("NoNewPrivs:"), ["1"]);
        for set in ["CapEff:", "CapPrm:", "CapAmb:"] {
            assert_eq!(line(set), ["0000000000000000"], "{set}");
        }
        let own = fs::read_to_string("/proc/self/status").unwrap();
        assert!(own.contains("NoNewPrivs:\t0"), "this process lost privileges of its own");
    }
}
