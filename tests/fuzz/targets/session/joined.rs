//! Two sessions that keep the protocol, and the links between them, which come and go.

use std::time::{Duration, Instant};

use roadshow::config::ACK_DELAY;
use roadshow::session::{DisconnectReason, WriteCertainty};
use roadshow::wire::{FrameCodec, PREFIX_BYTES, Resume};
use roadshow_fuzz::Script;
use tokio_util::codec::Decoder;

use super::message::Number;
use super::side::Side;

/// Runs the script's steps, and lets everything come to its end.
pub(crate) fn run(script: &mut Script<'_>) {
    let sides = [Side::new(script, true), Side::new(script, true)];
    let mut world = World::new(sides);
    world.dial(0);
    world.welcome();
    while !script.is_over() {
        world.step(script);
        world.check();
    }
    world.settle();
}

struct World {
    now: Instant,
    sides: [Side; 2],
    /// The link that each side has, as far as it knows; 0 is none.
    links: [u32; 2],
    /// The link to which the bytes belong that each side has written.
    pipes: [u32; 2],
    last_link: u32,
    /// What a listener has answered to a dialler that has not read it.
    welcome: Option<Welcome>,
    /// What each side said last when it dialled, and how many resets there had been.
    hellos: [Option<(Resume, u32)>; 2],
    last: Number,
    epoch: u32,
}

struct Welcome {
    dialler: usize,
    link: u32,
    resume: Resume,
}

impl World {
    fn new(sides: [Side; 2]) -> Self {
        Self {
            now: Instant::now(),
            sides,
            links: [0; 2],
            pipes: [0; 2],
            last_link: 0,
            welcome: None,
            hellos: [None; 2],
            last: 0,
            epoch: 0,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let step = script.byte();
        let side = usize::from(step & 1);
        match (step >> 1) % 16 {
            0..=7 => {
                self.last += 1;
                self.sides[side].act(self.now, self.last, script);
            }
            8..=10 => {
                let frames = usize::from(script.byte());
                self.read(side, if frames < 128 { usize::MAX } else { frames % 8 });
            }
            11 => self.pass(Duration::from_micros(200 * u64::from(script.byte()))),
            12 => {
                self.dial(side);
                if script.byte() < 192 {
                    self.welcome();
                }
            }
            13 => self.welcome(),
            // Not at every such step, or nothing would live for long.
            14 => match script.byte() {
                0..64 => self.cut(script),
                64..96 => self.lose(side, WriteCertainty::Exact),
                _ => {}
            },
            _ => match script.byte() {
                0..16 => self.reset(side),
                16..64 => self.late_hello(side),
                64..80 => self.sides[side].fail_queued(),
                _ => {}
            },
        }
    }

    /// The peer of `side` reads so many frames that `side` has written. Says whether there were any.
    fn read(&mut self, side: usize, frames: usize) -> bool {
        if self.links[1 - side] == 0 || self.links[1 - side] != self.pipes[side] {
            return false;
        }
        let [one, other] = &mut self.sides;
        let (writer, reader) = if side == 0 { (one, other) } else { (other, one) };
        let mut codec = FrameCodec::established(reader.limits.frame_bytes_max);
        let mut next = || codec.decode(&mut writer.pipe).expect("the peer keeps to the limits");
        let read: Vec<_> = std::iter::from_fn(&mut next).take(frames).collect();
        let any = !read.is_empty();
        reader.receive(self.now, read).expect("the peer keeps the protocol");
        any
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for side in &mut self.sides {
            side.pass(self.now);
        }
    }

    fn is_joined(&self) -> bool {
        self.links[0] == self.links[1] && self.links[0] > 0
    }

    /// A side that has no link, or knows that it is dead, dials; the other takes the link.
    fn dial(&mut self, dialler: usize) {
        if self.is_joined() {
            return;
        }
        self.lose(dialler, WriteCertainty::Exact);
        let hello = self.sides[dialler].session.resume();
        self.hellos[dialler] = Some((hello, self.epoch));
        assert!(!self.sides[1 - dialler].session.is_stale(hello), "{hello:?} is true");
        self.take(dialler, hello);
    }

    /// Something that a side has said long ago, when it dialled, arrives only now.
    fn late_hello(&mut self, dialler: usize) {
        let Some((hello, epoch)) = self.hellos[dialler] else { return };
        if epoch == self.epoch && !self.sides[1 - dialler].session.is_stale(hello) {
            self.take(dialler, hello);
            // The dialler does not know this attempt any more.
            self.welcome = None;
        }
    }

    /// The listener takes a link.
    fn take(&mut self, dialler: usize, hello: Resume) {
        let listener = 1 - dialler;
        self.lose(listener, WriteCertainty::AtMost);
        self.last_link += 1;
        self.attach(listener, self.last_link, hello);
        let resume = self.sides[listener].session.resume();
        self.welcome = Some(Welcome { dialler, link: self.last_link, resume });
    }

    /// The dialler reads the welcome, if there is one. The listener may be gone by then.
    fn welcome(&mut self) {
        let Some(Welcome { dialler, link, resume }) = self.welcome.take() else { return };
        self.attach(dialler, link, resume);
    }

    fn attach(&mut self, side: usize, link: u32, resume: Resume) {
        let terms = self.sides[1 - side].terms();
        self.sides[side].attach(&terms, resume).expect("the peer is where it says");
        (self.links[side], self.pipes[side]) = (link, link);
    }

    /// A side sees that its link is gone, if it has one.
    fn lose(&mut self, side: usize, known: WriteCertainty) {
        if std::mem::take(&mut self.links[side]) > 0 {
            self.sides[side].detach(known);
        }
    }

    fn cut(&mut self, script: &mut Script<'_>) {
        let unsure = [script.byte(), script.byte()].map(|bytes| 16 * usize::from(bytes));
        for (side, bytes) in unsure.into_iter().enumerate() {
            // The last that the writer does before it is heard of no more.
            self.sides[side].write_untold(bytes);
            if bytes > 0 {
                self.read(side, usize::MAX);
            }
        }
        for (side, bytes) in unsure.into_iter().enumerate() {
            self.lose(side, if bytes == 0 { WriteCertainty::Exact } else { WriteCertainty::AtMost });
        }
    }

    /// A side has evidence that the other is gone.
    fn reset(&mut self, side: usize) {
        self.lose(side, WriteCertainty::AtMost);
        self.welcome.take_if(|welcome| welcome.dialler == side);
        self.epoch += 1;
        self.sides[side].reset(&DisconnectReason::Closed);
    }

    fn check(&self) {
        self.sides.iter().for_each(Side::check);
        for (side, peer) in self.pairs() {
            let in_step = side.peer_epoch == Some(peer.session.resume().epoch)
                && peer.peer_epoch == Some(side.session.resume().epoch);
            let taken = peer.session.accepted_bytes() + peer.session.owed_bytes();
            assert!(!in_step || side.session.charged_bytes() >= taken, "what is taken on is charged");
        }
    }

    fn pairs(&self) -> [(&Side, &Side); 2] {
        [(&self.sides[0], &self.sides[1]), (&self.sides[1], &self.sides[0])]
    }

    /// Lets everything that can still happen happen, and looks at what has become of it.
    fn settle(&mut self) {
        if !self.is_joined() {
            self.dial(0);
            self.welcome();
        }
        self.come_to_rest();
        let somebody_leaves = self.sides.iter().any(|side| side.leaving);
        for (side, peer) in self.pairs() {
            if somebody_leaves {
                assert!(
                    !side.leaving || side.came.peer_closing || peer.came.peer_closing,
                    "a goodbye is said"
                );
            } else {
                side.check_at_rest();
                assert_eq!(side.session.charged_bytes(), peer.session.owed_bytes(), "credit is conserved");
                let limit = side.limits.frame_bytes_max.min(peer.limits.frame_bytes_max);
                let table = peer.table.as_ref().filter(|table| PREFIX_BYTES + table.len() <= limit);
                assert_eq!(
                    side.came.table.as_ref().map(|body| &body.message[..]),
                    table.map(|table| &table[..])
                );
            }
        }
        if somebody_leaves {
            for side in [0, 1] {
                self.reset(side);
            }
        }
        for (side, peer) in self.pairs() {
            side.made.check(&peer.came, self.epoch == 0);
        }
    }

    fn come_to_rest(&mut self) {
        loop {
            self.check();
            let mut any = false;
            for side in [0, 1] {
                any |= self.sides[side].write(usize::MAX) > 0;
                any |= self.read(side, usize::MAX);
                any |= self.sides[1 - side].answer_all();
            }
            if any {
                continue;
            }
            // Acknowledgements that were due go out.
            self.pass(ACK_DELAY);
            if !self.sides.iter().any(|side| side.session.has_outgoing()) {
                return;
            }
        }
    }
}
