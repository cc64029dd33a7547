//! What happens to the network and to the hosts, as the seed has it.

use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use roadshow::Memory;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::PATIENCE;
use super::place::{Places, ip_of};
use super::record::{End, Op};
use super::script::{Script, Weather};
use super::senders::{self, Answer};

/// Time in which a host that another can reach answers it: links and handshakes take their latency, and
/// large messages that were sent before theirs.
const PROBE_WITHIN: Duration = Duration::from_millis(3_500);

/// Plays the faults of a script, and lets all be well at the end.
pub(crate) async fn play(script: &Script, network: &Memory, places: &Rc<Places>, tasks: &mut JoinSet<()>) {
    let mut rng = script.rng(0);
    let until = Instant::now() + script.faults_for;
    let mut lives = 0;
    slow_down(network, &mut rng);
    while Instant::now() < until {
        sleep(Duration::from_millis(rng.u64(5..250))).await;
        let (one, other) = two(script, &mut rng);
        let most = match script.weather {
            Weather::Calm => 1,
            Weather::Breaks => 7,
            Weather::Forgets => 9,
            Weather::Ends => 14,
        };
        match rng.u8(..most) {
            0 => slow_down(network, &mut rng),
            1..=3 => cut(network, places, one, other),
            4 => part(network, places, one, other),
            5 => {
                places.note("the network heals");
                network.heal(ip_of(one), ip_of(other));
            }
            6 => misdirect(network, places, one, other).await,
            7 | 8 => forget(places, one, other, Duration::from_millis(rng.u64(0..200))).await,
            9..=11 => refuse(network, places, one),
            12 => {
                places.note("the network heals altogether");
                network.heal_all();
            }
            _ => {
                lives += 1;
                places.record.note(format_args!("host {one} dies"));
                places.others(one).for_each(|other| places.record.disturb(one, other));
                // Its own messages to itself end with it.
                places.record.disturb(one, one);
                places.restart(script, network, one, lives).await;
                senders::start(script, places, one, lives, tasks);
            }
        }
    }
    network.heal_all();
    network.latency(Duration::ZERO..=Duration::from_millis(5));
}

fn cut(network: &Memory, places: &Places, one: usize, other: usize) {
    let links = network.cut(ip_of(one), ip_of(other));
    places.record.note(format_args!("cut {one}-{other}: {links} links"));
}

/// A host forgets another, as one that leaves, and learns of it anew. Both live meanwhile.
async fn forget(places: &Places, one: usize, other: usize, apart: Duration) {
    places.record.note(format_args!("{one} forgets {other}"));
    places.record.disturb(one, other);
    places.forget(one, other);
    sleep(apart).await;
    places.introduce(one, other);
}

/// A host dials another where a machine takes connections and says nothing. The other can reach it, and so
/// its call has an answer.
async fn misdirect(network: &Memory, places: &Rc<Places>, one: usize, other: usize) {
    if places.address_of(one).is_none() || places.address_of(other).is_none() {
        return;
    }
    places.record.note(format_args!("{one} dials a wrong address of {other}"));
    network.heal_all();
    places.misdirect(one, other);
    cut(network, places, one, other);
    let (op, answer) = senders::probe(places, one, other, None);
    let mut asked = JoinSet::new();
    asked.spawn_local(answered(Rc::clone(places), op, answer));
    // Its dial is under way by then.
    sleep(Duration::from_millis(60)).await;
    let (probe, answer) = senders::probe(places, other, one, Some(PROBE_WITHIN));
    answered(Rc::clone(places), probe, answer).await;
    places.introduce(one, other);
    asked.join_all().await;
}

/// Waits for an answer, for a bounded time.
async fn answered(places: Rc<Places>, op: Op, answer: Answer) {
    match timeout(PATIENCE, answer).await {
        Ok(answer) => places.record.answer(op, answer),
        Err(_) => {
            places.record.end(op, End::Dropped);
            places.record.violation(format_args!("{op} has no answer after {PATIENCE:?}"));
        }
    }
}

/// Nothing arrives from one host at the other, as long as it is not healed.
fn part(network: &Memory, places: &Places, one: usize, other: usize) {
    places.record.note(format_args!("{other} hears nothing of {one}"));
    network.partition(ip_of(one), ip_of(other));
}

/// Connections to a host are refused, and those that there are end.
fn refuse(network: &Memory, places: &Places, one: usize) {
    let Some(address) = places.address_of(one) else { return };
    places.record.note(format_args!("host {one} refuses connections"));
    network.refuse(address);
    for other in places.others(one) {
        places.record.disturb(one, other);
        network.cut(ip_of(one), ip_of(other));
    }
}

fn slow_down(network: &Memory, rng: &mut Rng) {
    let least = Duration::from_micros(rng.u64(0..20_000));
    network.latency(least..=least + Duration::from_micros(rng.u64(0..50_000)));
}

fn two(script: &Script, rng: &mut Rng) -> (usize, usize) {
    let one = rng.usize(..script.hosts);
    let other = (one + rng.usize(1..script.hosts)) % script.hosts;
    (one, other)
}
