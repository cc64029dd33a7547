//! What happens to the network and to the hosts, as the seed has it.

use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use roadshow::transport::Memory;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::place::{Places, ip_of};
use super::script::{Script, Weather};
use super::senders;

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
            Weather::Breaks => 6,
            Weather::Ends => 9,
        };
        match rng.u8(..most) {
            0 => slow_down(network, &mut rng),
            1..=3 => {
                let links = network.cut(ip_of(one), ip_of(other));
                places.record.note(format_args!("cut {one}-{other}: {links} links"));
            }
            4 => part(network, places, one, other),
            5 => {
                places.note("the network heals");
                network.heal(ip_of(one), ip_of(other));
            }
            6 => refuse(network, places, one),
            7 => {
                places.note("the network heals altogether");
                network.heal_all();
            }
            _ => {
                lives += 1;
                places.record.note(format_args!("host {one} dies"));
                places.record.disturb(one);
                places.restart(script, network, one, lives).await;
                senders::start(script, places, one, lives, tasks);
            }
        }
    }
    network.heal_all();
    network.latency(Duration::ZERO..=Duration::from_millis(5));
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
    places.record.disturb(one);
    network.refuse(address);
    for other in places.others(one) {
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
