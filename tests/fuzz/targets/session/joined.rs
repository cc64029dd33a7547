//! Two sessions that keep the protocol, and the links between them, which break and reconnect.

use std::time::{Duration, Instant};

use roadshow::internals::config::ACK_DELAY;
use roadshow::internals::session::{DisconnectReason, WriteCertainty};
use roadshow::internals::wire::{FrameCodec, PREFIX_BYTES, Resume};
use roadshow_fuzz::Script;
use tokio_util::codec::Decoder;

use super::endpoint::Endpoint;
use super::message::Number;

/// Runs the script's steps, and then lets both sessions become idle.
pub(crate) fn run(script: &mut Script<'_>) {
    let sides = [Endpoint::new(script, true), Endpoint::new(script, true)];
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
    sides: [Endpoint; 2],
    /// Number of the link that each side believes to have; 0 is none.
    links: [u32; 2],
    /// Number of the link to which each side's written bytes belong.
    pipes: [u32; 2],
    last_link: u32,
    /// Welcome of a listener that the dialler has not read.
    welcome: Option<Welcome>,
    /// Last hello of each side, and the number of resets before it.
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
    fn new(sides: [Endpoint; 2]) -> Self {
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
            11 => self.advance(Duration::from_micros(200 * u64::from(script.byte()))),
            12 => {
                self.dial(side);
                if script.byte() < 192 {
                    self.welcome();
                }
            }
            13 => self.welcome(),
            // A break at every such step would leave no link long enough to carry anything.
            14 => match script.byte() {
                0..64 => self.cut(script),
                64..96 => self.disconnect(side, WriteCertainty::Exact),
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

    /// Reads up to `frames` frames that `side` has written, and returns true if there were any.
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

    fn advance(&mut self, time: Duration) {
        self.now += time;
        for side in &mut self.sides {
            side.advance(self.now);
        }
    }

    fn is_joined(&self) -> bool {
        self.links[0] == self.links[1] && self.links[0] > 0
    }

    /// Dials from a side that has no link or knows that it is broken; the other side accepts.
    fn dial(&mut self, dialler: usize) {
        if self.is_joined() {
            return;
        }
        self.disconnect(dialler, WriteCertainty::Exact);
        let hello = self.sides[dialler].session.resume();
        self.hellos[dialler] = Some((hello, self.epoch));
        assert!(!self.sides[1 - dialler].session.is_stale(hello), "{hello:?} is true");
        self.take(dialler, hello);
    }

    /// Delivers an earlier hello late.
    fn late_hello(&mut self, dialler: usize) {
        let Some((hello, epoch)) = self.hellos[dialler] else { return };
        if epoch == self.epoch && !self.sides[1 - dialler].session.is_stale(hello) {
            self.take(dialler, hello);
            // The dialler has given up this attempt, and its welcome is ignored.
            self.welcome = None;
        }
    }

    /// Accepts a link at the listener.
    fn take(&mut self, dialler: usize, hello: Resume) {
        let listener = 1 - dialler;
        self.disconnect(listener, WriteCertainty::AtMost);
        self.last_link += 1;
        self.attach(listener, self.last_link, hello);
        let resume = self.sides[listener].session.resume();
        self.welcome = Some(Welcome { dialler, link: self.last_link, resume });
    }

    /// Delivers the welcome to the dialler, if there is one. The listener may have another link by then.
    fn welcome(&mut self) {
        let Some(Welcome { dialler, link, resume }) = self.welcome.take() else { return };
        self.attach(dialler, link, resume);
    }

    fn attach(&mut self, side: usize, link: u32, resume: Resume) {
        let terms = self.sides[1 - side].terms();
        self.sides[side].attach(&terms, resume).expect("the peer is where it says");
        (self.links[side], self.pipes[side]) = (link, link);
    }

    /// Reports the loss of a side's link, if it has one.
    fn disconnect(&mut self, side: usize, known: WriteCertainty) {
        if std::mem::take(&mut self.links[side]) > 0 {
            self.sides[side].detach(known);
        }
    }

    fn cut(&mut self, script: &mut Script<'_>) {
        let unreported = [script.byte(), script.byte()].map(|bytes| 16 * usize::from(bytes));
        for (side, bytes) in unreported.into_iter().enumerate() {
            // The writer wrote these bytes, but the link breaks before it reports them to the session.
            self.sides[side].write_unreported(bytes);
            if bytes > 0 {
                self.read(side, usize::MAX);
            }
        }
        for (side, bytes) in unreported.into_iter().enumerate() {
            self.disconnect(side, if bytes == 0 { WriteCertainty::Exact } else { WriteCertainty::AtMost });
        }
    }

    /// Resets a side that has evidence of the peer's end.
    fn reset(&mut self, side: usize) {
        self.disconnect(side, WriteCertainty::AtMost);
        self.welcome.take_if(|welcome| welcome.dialler == side);
        self.epoch += 1;
        self.sides[side].reset(&DisconnectReason::Closed);
    }

    fn check(&self) {
        self.sides.iter().for_each(Endpoint::check);
        for (side, peer) in self.pairs() {
            let in_step = side.peer_epoch == Some(peer.session.resume().epoch)
                && peer.peer_epoch == Some(side.session.resume().epoch);
            let taken = peer.session.accepted_bytes() + peer.session.owed_bytes();
            assert!(!in_step || side.session.charged_bytes() >= taken, "accepted bytes are charged");
        }
    }

    fn pairs(&self) -> [(&Endpoint, &Endpoint); 2] {
        [(&self.sides[0], &self.sides[1]), (&self.sides[1], &self.sides[0])]
    }

    /// Lets everything finish, and compares both sides.
    fn settle(&mut self) {
        if !self.is_joined() {
            self.dial(0);
            self.welcome();
        }
        self.run_until_idle();
        let any_closing = self.sides.iter().any(|side| side.closing);
        for (side, peer) in self.pairs() {
            if any_closing {
                assert!(
                    !side.closing || side.received.peer_closing || peer.received.peer_closing,
                    "a goodbye arrives"
                );
            } else {
                side.check_at_rest();
                assert_eq!(side.session.charged_bytes(), peer.session.owed_bytes(), "credit is conserved");
                let limit = side.limits.frame_bytes_max.min(peer.limits.frame_bytes_max);
                let table = peer.table.as_ref().filter(|table| PREFIX_BYTES + table.len() <= limit);
                assert_eq!(
                    side.received.table.as_ref().map(|body| &body.message[..]),
                    table.map(|table| &table[..])
                );
            }
        }
        if any_closing {
            for side in [0, 1] {
                self.reset(side);
            }
        }
        for (side, peer) in self.pairs() {
            side.sent.check(&peer.received, self.epoch == 0);
        }
    }

    fn run_until_idle(&mut self) {
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
            // Delayed acknowledgements become due.
            self.advance(ACK_DELAY);
            if !self.sides.iter().any(|side| side.session.has_outgoing()) {
                return;
            }
        }
    }
}
