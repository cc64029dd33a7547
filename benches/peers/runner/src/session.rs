//! Session: a client with its servers.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use peers_harness::Load;
use serde_json::Value;

use crate::args::Args;
use crate::figures::Figures;
use crate::peers::{Peer, Servers};
use crate::process::{Pin, Process};
use crate::programs::{own_address, roadshow_command};

/// Time in which a server has to listen, and a client to connect.
const START_LIMIT: Duration = Duration::from_secs(40);

/// Time that a load may take beside the time for which it is measured. The client has a shorter one of its own.
const LOAD_LIMIT: Duration = Duration::from_secs(90);

/// Runs all loads of a peer once, in a session for each number of servers.
pub(crate) fn run(programs: &Path, peer: &'static Peer, pin: &Pin, args: &Args, figures: &mut Figures) {
    let mut loads: Vec<_> = args.loads.iter().copied().filter(|load| !peer.omits.contains(load)).collect();
    while let Some(servers) = loads.first().map(|load| load.servers()) {
        let (now, later): (Vec<_>, Vec<_>) = loads.into_iter().partition(|load| load.servers() == servers);
        let mut session = Session { programs, peer, pin, args, figures: &mut *figures, left: now.clone() };
        if let Err(error) = session.run(servers, &now) {
            // What ran before the failure counts; the other loads of the session have none.
            for load in std::mem::take(&mut session.left) {
                session.figures.fail(peer, pin, load, &format!("{error:#}"));
            }
        }
        loads = later;
    }
}

/// Server that listens.
struct Server {
    process: Process,
    address: String,
    /// Token of a node; empty for other servers.
    secret: String,
}

fn addresses(servers: &[Server]) -> String {
    servers.iter().map(|server| server.address.as_str()).collect::<Vec<_>>().join(",")
}

struct Session<'a> {
    programs: &'a Path,
    peer: &'static Peer,
    pin: &'a Pin,
    args: &'a Args,
    figures: &'a mut Figures,
    /// Loads without a line so far.
    left: Vec<Load>,
}

impl Session<'_> {
    fn run(&mut self, servers: usize, loads: &[Load]) -> Result<()> {
        let mut command = self.command("client");
        let names: Vec<_> = loads.iter().map(|load| load.name()).collect();
        command.args(["--loads", &names.join(","), "--seconds", &self.args.seconds.to_string()]);
        if let Some(file) = &self.args.words {
            command.arg("--words").arg(file);
        }
        let running = self.servers(servers)?;
        self.place(&mut command, servers, &running);
        let client = Process::start(command, self.pin.client)?;
        let idle = self.next(&client, START_LIMIT)?.context("the client ended before its first load")?;
        // The session with one server is the one that the other columns of the table of memory are from.
        if servers == 1 {
            self.figures.idle(self.peer, self.pin, idle);
        }
        self.lines(&client)?;
        client.end()
    }

    /// Starts the servers that are not the client's.
    fn servers(&self, count: usize) -> Result<Vec<Server>> {
        let mut running = Vec::new();
        match self.peer.servers {
            Servers::OfClient => {}
            Servers::OfNode => running.push(self.node(count)?),
            Servers::Each => {
                for _ in 0..count {
                    // It gets the addresses of the earlier ones, with which it may form a cluster.
                    let mut command = self.command("server");
                    command.args(["--servers", &addresses(&running)]);
                    running.push(self.server(command)?);
                }
            }
        }
        Ok(running)
    }

    /// Tells the client of its servers.
    fn place(&self, client: &mut Command, count: usize, running: &[Server]) {
        if self.peer.servers == Servers::Each {
            let pids: Vec<_> = running.iter().map(|server| server.process.pid().to_string()).collect();
            client.args(["--servers", &addresses(running), "--pids", &pids.join(",")]);
            return;
        }
        let (count, core) = (count.to_string(), self.pin.servers.to_string());
        client.args(["--server-count", &count, "--server-core", &core]);
        if let Some(node) = running.first() {
            // In the environment, since all users of the machine can read the arguments.
            client.env("ROADSHOW_ADDRESS", &node.address).env("ROADSHOW_TOKEN", &node.secret);
        }
    }

    /// Starts a node of Roadshow on an address that is not loopback.
    fn node(&self, workers: usize) -> Result<Server> {
        let host =
            own_address().context("this machine has no address except loopback; leave the peer out")?;
        let mut command = self.command("server");
        command.args(["--host", &host.to_string(), "--server-count", &workers.to_string()]);
        command.arg("--command").arg(roadshow_command(self.programs));
        self.server(command)
    }

    fn lines(&mut self, client: &Process) -> Result<()> {
        let limit = LOAD_LIMIT + Duration::from_secs_f64(self.args.seconds * 4.0);
        while !self.left.is_empty() {
            let line = self.next(client, limit)?.context("the client ended before its last load")?;
            let name =
                line.get("load").and_then(Value::as_str).context("a line of the client has no load")?;
            let load = Load::parse(name)?;
            self.left.retain(|left| *left != load);
            self.figures.add(self.peer, self.pin, load, line);
        }
        Ok(())
    }

    /// Reads a line of the client; frameworks may print lines of their own.
    fn next(&self, client: &Process, limit: Duration) -> Result<Option<Value>> {
        let deadline = Instant::now() + limit;
        while let Some(line) = client.line(deadline)? {
            if line.starts_with('{') {
                let value = serde_json::from_str(&line);
                return Ok(Some(value.with_context(|| format!("the client printed `{line}`"))?));
            }
        }
        Ok(None)
    }

    fn command(&self, mode: &str) -> Command {
        let mut command = Command::new(self.programs.join(self.peer.package));
        command.arg(mode).args(self.peer.options);
        command
    }

    /// Starts a server, and waits until it listens.
    fn server(&self, command: Command) -> Result<Server> {
        let process = Process::start(command, self.pin.servers)?;
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let line = process.line(deadline)?.context("the server ended before it listened")?;
            // Frameworks print lines of their own.
            if let Some(words) = line.strip_prefix("READY ") {
                let (address, secret) = words.split_once(' ').unwrap_or((words, ""));
                return Ok(Server { process, address: address.to_owned(), secret: secret.to_owned() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::figures::Cell;
    use crate::peers;

    /// Runs two loads over a script in the place of a peer; its client has this part of its own.
    fn run_script(name: &str, client: &str) -> Figures {
        let folder = std::env::temp_dir().join(format!("peers-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let program = folder.join("peer-tokio");
        let script = format!(
            "#!/bin/sh\nif [ $1 = server ]; then echo hello; echo READY here; exec tail -f /dev/null; fi\n{client}\n"
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let args = Args {
            seconds: 0.1,
            rounds: 1,
            peers: vec![peers::find("tokio").unwrap()],
            loads: vec![Load::Calls64, Load::Words],
            pins: Pin::all().unwrap(),
            words: None,
            json: false,
        };
        let mut figures = Figures::default();
        run(&folder, args.peers[0], &args.pins[0], &args, &mut figures);
        fs::remove_dir_all(&folder).unwrap();
        figures
    }

    fn rate(figures: &Figures, load: Load) -> Cell {
        figures.load(("tokio", Pin::all().unwrap()[0]), load, "rate")
    }

    #[test]
    fn lines_of_a_client_become_figures() {
        let figures = run_script(
            "good",
            r#"echo '{"client_mib":1}'
               echo 'a line of a framework'
               case "$*" in *"--servers here --pids "*) echo '{"load":"calls-64","rate":7}' ;; esac
               echo '{"load":"words","unsupported":true}'"#,
        );
        assert!(figures.failures().is_empty(), "{:?}", figures.failures());
        assert_eq!(rate(&figures, Load::Calls64), Cell::Value(7.0));
        assert_eq!(rate(&figures, Load::Words), Cell::None);
    }

    #[test]
    fn client_that_ends_early_fails_the_loads_that_are_left() {
        let figures = run_script("early", r#"echo '{}'; echo '{"load":"calls-64","rate":7}'; exit 3"#);
        assert_eq!(rate(&figures, Load::Calls64), Cell::Value(7.0));
        assert_eq!(rate(&figures, Load::Words), Cell::Failed);
        assert_eq!(figures.failures().len(), 1);
    }

    #[test]
    fn failed_load_and_failed_exit_are_reported() {
        let figures =
            run_script("failed", r#"echo '{}'; echo '{"load":"calls-64","error":"a wrong count"}'; echo x"#);
        assert_eq!(rate(&figures, Load::Calls64), Cell::Failed);
        assert_eq!(rate(&figures, Load::Words), Cell::Failed);
    }
}
