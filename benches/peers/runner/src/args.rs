//! Arguments of the runner.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use peers_harness::Load;

use crate::peers::{self, Peer};
use crate::process::Pin;

/// Text of `--help`.
pub(crate) const USAGE: &str = "\
Runs the same loads over all peers, in turns, and prints tables in Markdown.

usage: benches/peers/run [OPTION]...

  --seconds S                  time for which a load is measured [default: 1.5]
  --rounds R                   rounds; the tables have medians [default: 3]
  --peers a,b                  peers [default: all]
  --loads x,y                  loads [default: all]
  --pin one-core|two-cores     one pinning [default: both]
  --words FILE                 text for the lists of words [default: made up]
  --json                       print one JSON object

benches/peers/README.md describes the peers and the loads. The code is 1 if a load failed.
";

/// Checked arguments.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) seconds: f64,
    pub(crate) rounds: usize,
    pub(crate) peers: Vec<&'static Peer>,
    pub(crate) loads: Vec<Load>,
    pub(crate) pins: Vec<Pin>,
    pub(crate) words: Option<PathBuf>,
    pub(crate) json: bool,
}

impl Args {
    /// Reads the arguments of this process.
    ///
    /// # Errors
    ///
    /// An unknown option or name, or a malformed value.
    pub(crate) fn from_env() -> Result<Self> {
        Self::parse(std::env::args().skip(1), &Pin::all()?)
    }

    fn parse(mut words: impl Iterator<Item = String>, pins: &[Pin]) -> Result<Self> {
        let mut args = Self {
            seconds: 1.5,
            rounds: 3,
            peers: peers::ALL.iter().collect(),
            loads: Load::ALL.to_vec(),
            pins: pins.to_vec(),
            words: None,
            json: false,
        };
        while let Some(option) = words.next() {
            if option == "--json" {
                args.json = true;
                continue;
            }
            let value = words.next().with_context(|| format!("{option} needs a value"))?;
            args.set(&option, &value).with_context(|| format!("{option} {value}"))?;
        }
        ensure!(!args.pins.is_empty(), "this machine has one core for this process; give --pin one-core");
        Ok(args)
    }

    fn set(&mut self, option: &str, value: &str) -> Result<()> {
        let list = || value.split(',');
        match option {
            "--seconds" => {
                self.seconds = value.parse()?;
                ensure!((0.05..=600.0).contains(&self.seconds), "give seconds from 0.05 to 600");
            }
            "--rounds" => {
                self.rounds = value.parse()?;
                ensure!((1..=100).contains(&self.rounds), "give rounds from 1 to 100");
            }
            "--peers" => self.peers = list().map(peers::find).collect::<Result<_>>()?,
            "--loads" => self.loads = list().map(Load::parse).collect::<Result<_>>()?,
            "--pin" => self.pins.retain(|pin| list().any(|name| name == pin.name())),
            // Clients run in the folder of the caller, as the runner does.
            "--words" => self.words = Some(value.into()),
            _ => bail!("no such option; --help lists them"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args> {
        Args::parse(line.split_whitespace().map(str::to_owned), &Pin::of(&[0, 1]))
    }

    #[test]
    fn all_peers_and_loads_run_by_default() {
        let args = parse("").unwrap();
        assert_eq!((args.peers.len(), args.loads.len()), (peers::ALL.len(), Load::ALL.len()));
        assert_eq!((args.pins.len(), args.rounds, args.json), (2, 3, false));
    }

    #[test]
    fn names_select_peers_loads_and_pinnings() {
        let args = parse("--peers tokio,roadshow --loads words --pin one-core --json").unwrap();
        assert_eq!(args.peers.iter().map(|peer| peer.name).collect::<Vec<_>>(), ["tokio", "roadshow"]);
        assert_eq!((args.loads, args.pins.len(), args.json), (vec![Load::Words], 1, true));
    }

    #[test]
    fn mistakes_name_the_option() {
        for line in
            ["--peers ray", "--loads none", "--seconds 0", "--rounds x", "--pin three", "--what 1", "--pin"]
        {
            let error = format!("{:#}", parse(line).expect_err(line));
            assert!(error.contains(line.split(' ').next().unwrap()) || line == "--pin three", "{error}");
        }
    }
}
