//! Binaries of the peers, and the command `roadshow`.

use std::env;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::peers::{Peer, Servers};

/// Workspace of the peers.
pub(crate) fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Folder of the binaries: this one's.
///
/// # Errors
///
/// The system does not say where this program is.
pub(crate) fn folder() -> Result<PathBuf> {
    let own = env::current_exe()?;
    Ok(own.parent().context("the runner has no folder")?.to_owned())
}

/// Builds the peers that take part, with Cargo's default release profile.
///
/// Each is built alone: in one build the peers would share the features of their dependencies.
///
/// # Errors
///
/// A peer does not compile.
pub(crate) fn build(peers: &[&Peer], programs: &Path) -> Result<()> {
    let mut packages: Vec<_> = peers.iter().map(|peer| peer.package).collect();
    packages.sort_unstable();
    packages.dedup();
    for package in packages {
        eprintln!("build of {package}");
        let arguments = ["build", "--release", "--locked", "--quiet", "--package", package];
        run(Command::new(cargo()).args(arguments).current_dir(workspace()), package)?;
    }
    if peers.iter().any(|peer| peer.servers == Servers::OfNode) {
        // Daemons carry no message between driver and workers, so a build without optimization does.
        let arguments =
            ["build", "--locked", "--quiet", "--features", "cli", "--bin", "roadshow", "--target-dir"];
        let root = workspace().join("../..");
        let mut build = Command::new(cargo());
        build.args(arguments).arg(target(programs)).current_dir(root);
        run(&mut build, "the command roadshow")?;
    }
    Ok(())
}

fn run(cargo: &mut Command, what: &str) -> Result<()> {
    let status = cargo.status().context("failed to start cargo; install it, or set CARGO")?;
    ensure!(status.success(), "{what} does not compile; the errors of cargo are above");
    Ok(())
}

fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Target folder of the library, in which `run` puts the folder of the peers.
fn target(programs: &Path) -> PathBuf {
    programs.join("../..")
}

/// Path of the command `roadshow`.
pub(crate) fn roadshow_command(programs: &Path) -> PathBuf {
    target(programs).join("debug/roadshow")
}

/// Returns an address of this machine that is not loopback, without sending anything.
pub(crate) fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address for documentation (RFC 5737): the kernel picks the source address of the default route.
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}
