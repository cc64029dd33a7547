//! Limits: a message over one of them fails alone, is given back, or waits, and no other is lost.

use futures_util::future::{Either, select};
use roadshow::Limits;
use roadshow::internals::host::{NotDelivered, OutcomeUnknown};
use roadshow::internals::wire::{Frame, decode};
use roadshow::prelude::*;

use crate::fixtures::{Clerk, Echo, Hold, Release};
use crate::hosts::{Gate, Pair, Plan, limits, poll_once, run, until};
use crate::raw::Raw;

/// Actor that accepts parcels and returns some.
#[derive(RemoteActor)]
#[remote(local, handles(Parcel, Taken, Give, Pause))]
struct Depot {
    taken: Vec<u32>,
    gate: Gate,
}

impl Depot {
    fn at(gate: &Gate) -> impl FnOnce() -> Self + Send + use<> {
        let gate = gate.clone();
        move || Self { taken: Vec::new(), gate }
    }
}

impl Actor for Depot {
    type Context = Context<Self>;
}

#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u32")]
struct Parcel {
    number: u32,
    content: Payload,
}

impl Parcel {
    fn new(number: u32, bytes: usize) -> Self {
        Self { number, content: vec![0; bytes].into() }
    }
}

impl Handler<Parcel> for Depot {
    type Result = u32;

    fn handle(&mut self, parcel: Parcel, _: &mut Context<Self>) -> u32 {
        self.taken.push(parcel.number);
        parcel.number
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Vec<u32>")]
struct Taken;

impl Handler<Taken> for Depot {
    type Result = Vec<u32>;

    fn handle(&mut self, _: Taken, _: &mut Context<Self>) -> Vec<u32> {
        self.taken.clone()
    }
}

/// Is answered with a payload of this many bytes.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Payload")]
struct Give(usize);

impl Handler<Give> for Depot {
    type Result = MessageResult<Give>;

    fn handle(&mut self, Give(bytes): Give, _: &mut Context<Self>) -> MessageResult<Give> {
        MessageResult(vec![1; bytes].into())
    }
}

/// Blocks the thread that reads the link.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
struct Pause;

impl Handler<Pause> for Depot {
    type Result = ();

    fn handle(&mut self, _: Pause, _: &mut Context<Self>) {
        self.gate.pass();
    }
}

const SHORT: usize = 64 << 10;

fn short_frames() -> Limits {
    limits(|limits| limits.frame_bytes_max = SHORT)
}

#[track_caller]
fn assert_too_large(reason: &NotDelivered, bytes: usize) {
    let NotDelivered::TooLarge { size, limit } = *reason else { panic!("{reason}") };
    // The size includes the header of the frame.
    assert!(limit <= SHORT && size > bytes && size < bytes + 100, "{size} of {limit}");
    // A user needs both numbers to choose a limit.
    let text = reason.to_string();
    assert!(text.contains(&size.to_string()) && text.contains(&limit.to_string()), "{text}");
}

#[test]
fn a_message_over_the_frame_limit_fails_alone() {
    run(async {
        let pair = Pair::with(short_frames()).await;
        let clerk = pair.serve(Clerk::default);
        let depot = pair.serve(Depot::at(&Gate::default()));
        let held = clerk.try_send(Hold(1)).unwrap();
        match depot.send(Parcel::new(1, SHORT)).await {
            Err(SendError::NotDelivered(reason)) => assert_too_large(&reason, SHORT),
            other => panic!("{other:?}"),
        }
        // Every kind of send checks the size before it queues the message.
        assert_too_large(&depot.tell(Parcel::new(2, SHORT)).await.unwrap_err(), SHORT);
        let back = depot.try_send(Parcel::new(3, SHORT)).unwrap_err();
        assert_too_large(&back.reason, SHORT);
        assert_eq!((back.message.number, back.message.content.len()), (3, SHORT));
        assert_eq!(pair.here.dead_letters(), 0);
        depot.do_send(Parcel::new(4, SHORT));
        assert_eq!(pair.here.dead_letters(), 1);
        // A slightly shorter parcel passes over the same link: the failures did not break it.
        assert_eq!(depot.send(Parcel::new(5, SHORT - 200)).await, Ok(5));
        assert_eq!(depot.send(Taken).await, Ok(vec![5]));
        assert_eq!(clerk.send(Release(1)).await, Ok(true));
        assert_eq!(held.await, Ok(1));
    });
}

#[test]
fn the_lower_frame_limit_of_two_hosts_applies() {
    run(async {
        let pair = Pair::of(Plan::default(), Plan { limits: short_frames(), ..Plan::default() }).await;
        let depot = pair.serve(Depot::at(&Gate::default()));
        // Before the first link the other side's limit is unknown, and is applied when the frame is
        // written.
        match depot.send(Parcel::new(1, SHORT)).await {
            Err(SendError::NotDelivered(reason)) => {
                assert!(reason.to_string().contains(&SHORT.to_string()), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(depot.send(Parcel::new(2, 10)).await, Ok(2));
        match depot.send(Parcel::new(3, SHORT)).await {
            Err(SendError::NotDelivered(reason)) => assert_too_large(&reason, SHORT),
            other => panic!("{other:?}"),
        }
        assert_eq!(depot.send(Taken).await, Ok(vec![2]));
    });
}

#[test]
fn a_reply_over_the_frame_limit_fails_its_call_alone() {
    run(async {
        // The limit of the caller applies to replies even if the callee has a higher one.
        for there in [Plan { limits: short_frames(), ..Plan::default() }, Plan::default()] {
            let pair = Pair::of(Plan { limits: short_frames(), ..Plan::default() }, there).await;
            let clerk = pair.serve(Clerk::default);
            let depot = pair.serve(Depot::at(&Gate::default()));
            let held = clerk.try_send(Hold(1)).unwrap();
            match depot.send(Give(SHORT)).await {
                Err(SendError::OutcomeUnknown(OutcomeUnknown::ReplyTooLarge { size, limit })) => {
                    assert!(size > SHORT as u64 && limit <= SHORT as u64, "{size} of {limit}");
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(depot.send(Give(1000)).await.unwrap().len(), 1000);
            assert!(depot.connected());
            assert_eq!(clerk.send(Release(1)).await, Ok(true));
            assert_eq!(held.await, Ok(1));
        }
    });
}

#[test]
fn thirty_two_mebibytes_go_there_and_back_unchanged() {
    const BYTES: usize = 32 << 20;
    run(async {
        let pair = Pair::start().await;
        let clerk = pair.serve(Clerk::default);
        let content = Payload::from(b"roadshow".repeat(BYTES / 8));
        let echoed = clerk.send(Echo(content.clone())).await.unwrap();
        assert_eq!(echoed.len(), BYTES);
        assert!(echoed == content);
    });
}

#[test]
fn each_kind_of_send_handles_a_full_queue_as_documented_and_no_accepted_message_is_lost() {
    const PARCEL: usize = 10_000;
    run(async {
        // A small queue, which six parcels fill.
        let plan = Plan { limits: limits(|limits| limits.outgoing_bytes_max = 64 << 10), ..Plan::default() };
        let site = plan.start().await;
        // The listener has not accepted yet, so nothing can be written.
        let (listener, identity) = Raw::listen_for(&site).await;
        let depot: RemoteAddr<Depot> = site.cluster.bind(&Raw::addr_of(identity, 1));
        for number in 0..6 {
            depot.do_send(Parcel::new(number, PARCEL));
        }
        assert_eq!(site.dead_letters(), 0);
        let full = depot.try_send(Parcel::new(100, PARCEL)).unwrap_err();
        assert_eq!((full.message.number, full.message.content.len()), (100, PARCEL));
        let NotDelivered::Full { waiting, limit, .. } = full.reason else { panic!("{}", full.reason) };
        assert!(waiting > 6 * PARCEL && waiting <= limit && limit == 64 << 10, "{waiting} of {limit}");
        // `do_send` can neither wait nor return the message.
        depot.do_send(Parcel::new(101, PARCEL));
        assert_eq!(site.dead_letters(), 1);
        let mut waiting_tell = Box::pin(depot.tell(Parcel::new(6, PARCEL)));
        assert!(poll_once(&mut waiting_tell).await.is_pending());
        assert_eq!(
            // Longer than the whole queue: a wait would never end.
            depot.tell(Parcel::new(102, 64 << 20)).await.map_err(|full| full.to_string().len() > 20),
            Err(true)
        );

        let mut raw = Raw::accept(&listener, identity).await;
        // The peer's acknowledgements free the queue.
        let waits = async {
            assert_eq!(waiting_tell.await, Ok(()));
            let _ = depot.send(Parcel::new(7, PARCEL)).await;
        };
        let reads = async {
            // Six one-way messages, the waiting one, and the last call.
            for expected in 0..8 {
                let body = match raw.read().await {
                    Some(Frame::Tell(tell)) => tell.body,
                    Some(Frame::Call(call)) if expected == 7 => call.body,
                    other => panic!("{other:?}"),
                };
                assert_eq!(decode::<Parcel>(&body).unwrap().number, expected);
            }
        };
        assert!(matches!(select(Box::pin(waits), Box::pin(reads)).await, Either::Right(_)));
        assert_eq!(site.dead_letters(), 1);
    });
}

#[test]
fn a_receiver_that_does_not_read_slows_its_sender_down_and_receives_every_message_in_order() {
    // More bytes than the kernel buffers for a connection.
    const PARCELS: u32 = 1500;
    const BYTES: usize = 15_000;
    run(async {
        let pair = Pair::with(limits(|limits| limits.outgoing_bytes_max = 64 << 10)).await;
        let gate = Gate::default();
        let depot = pair.serve(Depot::at(&gate));
        let paused = depot.try_send(Pause).unwrap();
        gate.reached_by(1).await;
        let sender = actix_rt::spawn({
            let depot = depot.clone();
            async move {
                for number in 0..PARCELS {
                    depot.tell(Parcel::new(number, BYTES)).await.unwrap();
                }
            }
        });
        // The queue is as full as whole parcels can make it.
        until(|| pair.here.host.snapshot().peers[0].outgoing_bytes > (64 << 10) - BYTES - 100).await;
        assert!(!sender.is_finished());
        gate.open();
        sender.await.unwrap();
        paused.await.unwrap();
        assert!(depot.send(Taken).await.unwrap().into_iter().eq(0..PARCELS));
        assert_eq!((pair.here.dead_letters(), pair.there.dead_letters()), (0, 0));
    });
}
