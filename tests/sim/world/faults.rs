//! Faults of the network and of the hosts, as decided by the seed.

use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use roadshow::Memory;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::PATIENCE;
use super::hosts::{SimHosts, ip_of};
use super::record::{End, Op};
use super::script::{Script, Severity};
use super::senders::{self, Answer};

/// Maximum time of an answer from a reachable host: links and handshakes take their latency, and so do
/// large messages sent before.
const PROBE_WITHIN: Duration = Duration::from_millis(3_500);

/// Plays the faults of a script, and heals everything at the end.
pub(crate) async fn play(script: &Script, network: &Memory, hosts: &Rc<SimHosts>, tasks: &mut JoinSet<()>) {
    let mut rng = script.rng(0);
    let until = Instant::now() + script.faults_for;
    let mut restarts = 0;
    slow_down(network, &mut rng);
    while Instant::now() < until {
        sleep(Duration::from_millis(rng.u64(5..250))).await;
        let (one, other) = two(script, &mut rng);
        let most = match script.severity {
            Severity::Calm => 1,
            Severity::Breaks => 7,
            Severity::Forgets => 9,
            Severity::Ends => 14,
        };
        match rng.u8(..most) {
            0 => slow_down(network, &mut rng),
            // Cuts are the most frequent fault: the session has to survive them.
            1..=3 => cut(network, hosts, one, other),
            4 => partition(network, hosts, one, other),
            5 => {
                hosts.note("the link heals");
                network.heal(ip_of(one), ip_of(other));
            }
            6 => misdirect(network, hosts, one, other).await,
            // Only severities that permit it draw such a number.
            7 | 8 => forget(hosts, one, other, Duration::from_millis(rng.u64(0..200))).await,
            9..=11 => refuse(network, hosts, one),
            12 => {
                hosts.note("the whole network heals");
                network.heal_all();
            }
            _ => {
                restarts += 1;
                hosts.record.note(format_args!("host {one} is killed"));
                hosts.others(one).for_each(|other| hosts.record.disturb(one, other));
                // Messages of the host to itself end with it.
                hosts.record.disturb(one, one);
                hosts.restart(script, network, one, restarts).await;
                // The new incarnation sends as well; its earlier senders have failed.
                senders::start(script, hosts, one, restarts, tasks);
            }
        }
    }
    // A partition would prevent the other side's dial as well.
    network.heal_all();
    // Short, so that the final checks need not wait for the network.
    network.latency(Duration::ZERO..=Duration::from_millis(5));
}

fn cut(network: &Memory, hosts: &SimHosts, one: usize, other: usize) {
    let links = network.cut(ip_of(one), ip_of(other));
    hosts.record.note(format_args!("cut {one}-{other}: {links} links"));
}

/// Lets a host forget another that is alive, and learn of it again.
async fn forget(hosts: &SimHosts, one: usize, other: usize, apart: Duration) {
    hosts.record.note(format_args!("{one} forgets {other}"));
    hosts.record.disturb(one, other);
    hosts.forget(one, other);
    sleep(apart).await;
    hosts.introduce(one, other);
}

/// Lets a host dial an address that accepts connections and never answers. The other host can still dial the
/// first, so the first host's call gets an answer.
async fn misdirect(network: &Memory, hosts: &Rc<SimHosts>, one: usize, other: usize) {
    if hosts.address_of(one).is_none() || hosts.address_of(other).is_none() {
        return;
    }
    hosts.record.note(format_args!("{one} dials a wrong address of {other}"));
    network.heal_all();
    hosts.misdirect(one, other);
    cut(network, hosts, one, other);
    let (op, answer) = senders::probe(hosts, one, other, None);
    let mut asked = JoinSet::new();
    asked.spawn_local(answered(Rc::clone(hosts), op, answer));
    // Long enough for the dial to be in progress.
    sleep(Duration::from_millis(60)).await;
    let (probe, answer) = senders::probe(hosts, other, one, Some(PROBE_WITHIN));
    answered(Rc::clone(hosts), probe, answer).await;
    hosts.introduce(one, other);
    asked.join_all().await;
}

/// Waits for an answer, for a bounded time.
async fn answered(hosts: Rc<SimHosts>, op: Op, answer: Answer) {
    match timeout(PATIENCE, answer).await {
        Ok(answer) => hosts.record.answer(op, answer),
        Err(_) => {
            hosts.record.end(op, End::Dropped);
            hosts.record.violation(format_args!("{op} has no answer after {PATIENCE:?}"));
        }
    }
}

/// Blocks one direction between two hosts until the network is healed.
fn partition(network: &Memory, hosts: &SimHosts, one: usize, other: usize) {
    hosts.record.note(format_args!("{other} receives nothing from {one}"));
    network.partition(ip_of(one), ip_of(other));
}

/// Refuses connections to a host, and ends those that exist.
fn refuse(network: &Memory, hosts: &SimHosts, one: usize) {
    let Some(address) = hosts.address_of(one) else { return };
    hosts.record.note(format_args!("host {one} refuses connections"));
    network.refuse(address);
    for other in hosts.others(one) {
        hosts.record.disturb(one, other);
        network.cut(ip_of(one), ip_of(other));
    }
}

fn slow_down(network: &Memory, rng: &mut Rng) {
    let least = Duration::from_micros(rng.u64(0..20_000));
    network.latency(least..=least + Duration::from_micros(rng.u64(0..50_000)));
}

fn two(script: &Script, rng: &mut Rng) -> (usize, usize) {
    let one = rng.usize(..script.hosts);
    // The offset is at least 1, so the two differ.
    let other = (one + rng.usize(1..script.hosts)) % script.hosts;
    (one, other)
}
