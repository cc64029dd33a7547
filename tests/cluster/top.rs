//! `roadshow top` in a pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::proc;
use super::proc::wait_for;
use super::test_cluster::TestCluster;

/// Sequence that leaves the alternate screen.
const LEAVE: &str = "\x1b[?1049l";

/// Command in a pseudo-terminal of 80x24. Dropping it kills the command.
struct InTerminal {
    child: Child,
    keyboard: File,
    terminal: OwnedFd,
    written: Arc<Mutex<Vec<u8>>>,
}

impl InTerminal {
    fn run(site: &TestCluster, arguments: &[&str]) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = rustix::fs::open(&name, flags, Mode::empty()).unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let mut command = site.roadshow(arguments);
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let (keyboard, written) = (File::from(keyboard), Arc::new(Mutex::new(Vec::new())));
        let (mut screen, copy) = (keyboard.try_clone().unwrap(), written.clone());
        // Ends with an error once no process has the terminal open.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                copy.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { child, keyboard, terminal, written }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for a text, and forgets what was written until then.
    #[track_caller]
    fn sees(&self, text: &str) {
        wait_for(&format!("the terminal shows {text:?}"), || {
            let mut written = self.written.lock().unwrap();
            let shown = String::from_utf8_lossy(&written).into_owned();
            let found = shown.contains(text);
            if found {
                written.clear();
            }
            found.then_some(())
        });
    }

    /// Reports if the terminal echoes keys, which raw mode switches off.
    fn echoes(&self) -> bool {
        tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    fn has_state(&self, state: char) -> bool {
        let stat = String::from_utf8_lossy(&proc::file(self.child.id(), "stat")).into_owned();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(state))
    }

    #[track_caller]
    fn ends(&mut self) {
        let status = wait_for("the command ends", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
        self.sees(LEAVE);
        assert!(self.echoes(), "the terminal stays raw");
    }
}

impl Drop for InTerminal {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn top_takes_the_terminal_and_gives_it_back() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut top = InTerminal::run(&site, &["top", "--interval=0.2"]);
    assert!(top.echoes());
    top.sees("[1 Nodes]");
    top.sees("ALIVE");
    assert!(!top.echoes());
    top.press("x");
    top.sees("head's");
    top.press("?");
    top.sees("suspend;");
    top.press("\x1a");
    wait_for("Ctrl-Z stops the command", || top.has_state('T').then_some(()));
    top.sees(LEAVE);
    assert!(top.echoes(), "a shell would get a raw terminal");
    proc::signal(top.child.id(), Signal::CONT);
    top.sees("suspend;");
    assert!(!top.echoes());
    // The first key closes the help.
    top.press("qq");
    top.ends();
}

#[test]
fn keys_are_handled_when_they_arrive() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut top = InTerminal::run(&site, &["top", "--interval=60"]);
    top.sees("ALIVE");
    let begun = Instant::now();
    for _ in 0..6 {
        top.press("?");
        top.sees("suspend;");
        top.press("q");
        top.sees("ALIVE");
    }
    // The screen is also drawn each second. Keys that waited for that would take 12 s together.
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    top.press("q");
    top.ends();
}

#[test]
fn top_restores_the_terminal_at_signals_and_heals_a_lost_head() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut top = InTerminal::run(&site, &["top", "--interval=0.2"]);
    top.sees("ALIVE");
    proc::kill(site.nodes[0].head());
    top.sees("LOST,");
    site.restart_head();
    top.sees("live");
    proc::signal(top.child.id(), Signal::TERM);
    top.ends();

    let mut top = InTerminal::run(&site, &["top"]);
    top.sees("ALIVE");
    proc::signal(top.child.id(), Signal::INT);
    top.ends();
}
