//! Two sessions that keep the protocol, and a pipe between them.

use std::time::{Duration, Instant};

use roadshow::session::{Failed, Written};
use roadshow::wire::FrameCodec;
use roadshow_fuzz::Script;
use tokio_util::codec::Decoder;

use super::side::{End, Number, Side};

struct World {
    now: Instant,
    joined: bool,
    sides: [Side; 2],
    last: Number,
}

/// Runs the script's steps, and lets everything come to its end.
pub(crate) fn run(script: &mut Script<'_>) {
    let sides = [Side::new(script), Side::new(script)];
    let mut world = World { now: Instant::now(), joined: false, sides, last: 0 };
    world.join();
    while !script.is_over() {
        world.step(script);
        world.sides.iter().for_each(|side| side.check(world.now));
    }
    world.settle();
    world.check();
}

impl World {
    fn step(&mut self, script: &mut Script<'_>) {
        let step = script.byte();
        let side = usize::from(step & 1);
        match (step >> 1) % 16 {
            0..=8 => {
                self.last += 1;
                self.sides[side].act(self.now, self.last, script);
            }
            9..=12 => self.read(side),
            13 => self.pass(Duration::from_micros(200 * u64::from(script.byte()))),
            14 => self.join(),
            // Not at every such step, or nothing would live for long.
            _ if script.byte() < 64 => self.cut(script),
            _ => {}
        }
    }

    /// The peer of `side` reads what `side` has written.
    fn read(&mut self, side: usize) {
        let limit = self.sides[1 - side].limits.frame_bytes_max;
        let mut codec = FrameCodec::established(limit);
        let mut pipe = std::mem::take(&mut self.sides[side].pipe);
        let frames = std::iter::from_fn(|| codec.decode(&mut pipe).expect("the peer keeps to the limits"));
        assert!(self.sides[1 - side].receive(self.now, frames), "the peer keeps the protocol");
        self.sides[side].pipe = pipe;
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for side in &mut self.sides {
            side.pass(self.now);
        }
    }

    fn join(&mut self) {
        if !self.joined {
            self.joined = true;
            let limits = self.sides.each_ref().map(|side| side.limits.frame_bytes_max);
            self.sides[0].attach(self.now, limits[1]);
            self.sides[1].attach(self.now, limits[0]);
        }
    }

    fn cut(&mut self, script: &mut Script<'_>) {
        let unsure = [script.byte(), script.byte()].map(usize::from);
        for (side, bytes) in unsure.into_iter().enumerate() {
            // The last that the writer does before it is heard of no more.
            self.sides[side].write_untold(bytes);
            if bytes > 0 {
                self.read(side);
            }
        }
        self.joined = false;
        for (side, bytes) in self.sides.iter_mut().zip(unsure) {
            side.detach(if bytes == 0 { Written::Told } else { Written::Unsure });
        }
    }

    /// Lets everything that can still happen happen.
    fn settle(&mut self) {
        self.join();
        let idle = |side: &Side| side.session.is_drained() && side.pipe.is_empty() && side.has_answered();
        while !self.sides.iter().all(idle) {
            for side in [0, 1] {
                self.sides[side].write_bytes(usize::MAX);
                self.read(side);
                self.sides[1 - side].answer_all();
            }
        }
        self.pass(Duration::ZERO);
        self.sides.iter().for_each(|side| side.check(self.now));
    }

    fn check(&self) {
        for (side, peer) in [(&self.sides[0], &self.sides[1]), (&self.sides[1], &self.sides[0])] {
            assert!(peer.seen.is_sorted_by(|one, next| one < next), "messages come once and in order");
            for number in side.calls.keys() {
                let seen = peer.seen.binary_search(number).is_ok();
                match side.ends.get(number).expect("every call that was accepted ends") {
                    End::Replied(reply) => assert_eq!((*reply, seen), (Some(*number), true)),
                    End::Failed(Failed::ByPeer(failure)) => assert!(seen || !failure.ran(), "{failure}"),
                    End::Failed(failed) => assert!(
                        !(seen && failed.is_safe_to_retry()),
                        "call {number}: {failed}, and it was delivered"
                    ),
                    End::Forgotten => {}
                }
            }
            let told = side.tells.iter().filter(|tell| peer.seen.binary_search(tell).is_ok()).count() as u64;
            assert!(
                told + side.dead_letters <= side.tells.len() as u64,
                "no delivered tell is a dead letter"
            );
            let sent = |number: &Number| side.tells.contains(number) || side.calls.contains_key(number);
            assert!(peer.seen.iter().all(sent), "nothing comes that was not sent");
        }
    }
}
