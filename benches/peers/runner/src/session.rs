//! One client with its servers.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use peers_harness::Load;
use serde_json::Value;

use crate::args::Args;
use crate::figures::Figures;
use crate::peers::Peer;
use crate::process::{Pin, Process};

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
        let mut running = Vec::new();
        if self.peer.served {
            for _ in 0..servers {
                let server = self.server(&running)?;
                running.push(server);
            }
            let pids: Vec<_> = running.iter().map(|server| server.process.pid().to_string()).collect();
            command.args(["--servers", &addresses(&running), "--pids", &pids.join(",")]);
        } else {
            command.args([
                "--server-count",
                &servers.to_string(),
                "--server-core",
                &self.pin.servers.to_string(),
            ]);
        }
        let client = Process::start(command, self.pin.client)?;
        let idle = self.next(&client, START_LIMIT)?.context("the client ended before its first load")?;
        // The session with one server is the one that the other columns of the table of memory are from.
        if servers == 1 {
            self.figures.idle(self.peer, self.pin, idle);
        }
        self.lines(&client)?;
        client.end()
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

    /// Reads a line of the client.
    fn next(&self, client: &Process, limit: Duration) -> Result<Option<Value>> {
        let Some(line) = client.line(Instant::now() + limit)? else { return Ok(None) };
        Ok(Some(serde_json::from_str(&line).with_context(|| format!("the client printed `{line}`"))?))
    }

    fn command(&self, mode: &str) -> Command {
        let mut command = Command::new(self.programs.join(self.peer.package));
        command.arg(mode).args(self.peer.options);
        command
    }

    /// Starts a server. It gets the addresses of the earlier ones, with which it may form a cluster.
    fn server(&self, earlier: &[Server]) -> Result<Server> {
        let mut command = self.command("server");
        command.args(["--servers", &addresses(earlier)]);
        let process = Process::start(command, self.pin.servers)?;
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let line = process.line(deadline)?.context("the server ended before it listened")?;
            match line.strip_prefix("READY ") {
                Some(address) => return Ok(Server { process, address: address.to_owned() }),
                // Frameworks print lines of their own.
                None => {}
            }
        }
    }
}
