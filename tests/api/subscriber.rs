//! Subscriber of the library's log events that sends messages itself, as a program's may.

use std::sync::{Mutex, Once};
use std::time::Duration;

use roadshow::prelude::*;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata};

use crate::fixtures::{Add, Clerk, Note};
use crate::hosts::{PATIENCE, run, until};
use crate::proxy::{Cut, Proxy};

/// Receives all events that the library logs in this process.
pub(crate) struct Subscriber;

/// Recipient of each event, and the number of events sent.
static FORWARDED: Mutex<Option<(RemoteAddr<Clerk>, usize)>> = Mutex::new(None);

impl Subscriber {
    /// Installs this subscriber, once for the process.
    pub(crate) fn install() {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            let global = tracing::subscriber::set_global_default(Self);
            global.expect("no test of this executable has another subscriber");
        });
    }

    fn forward_to(address: Option<RemoteAddr<Clerk>>) -> usize {
        let mut forwarded = FORWARDED.lock().unwrap();
        let before = forwarded.take().map_or(0, |(_, events)| events);
        *forwarded = address.map(|address| (address, 0));
        before
    }
}

impl tracing::Subscriber for Subscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Events of other crates are logged under locks that the check does not know.
        metadata.target().starts_with("roadshow")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        // A subscriber may call back into the library, which would deadlock under one of its locks.
        let locks = roadshow::__private::locks_held();
        if locks > 0 {
            // An abort cannot be caught, as a panic in a handler would be.
            eprintln!("{} is logged under {locks} locks of the library", event.metadata().name());
            std::process::abort();
        }
        let address = {
            let mut forwarded = FORWARDED.lock().unwrap();
            // The send happens after this lock is released, since it may log again.
            forwarded.as_mut().map(|(address, events)| {
                *events += 1;
                address.clone()
            })
        };
        if let Some(address) = address {
            address.do_send(Note(0));
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn a_log_subscriber_may_send_to_the_peer_of_an_event() {
    // A separate thread: a deadlock would block it forever, and the test still fails in time.
    let (done, finished) = std::sync::mpsc::sync_channel(1);
    let scenario = std::thread::spawn(move || {
        run(async {
            let (pair, proxy) = Proxy::between(roadshow::Limits::default()).await;
            let clerk = pair.serve(Clerk::default);
            Subscriber::forward_to(Some(clerk.clone()));
            for round in 1..=5 {
                assert_eq!(clerk.send(Add(1)).await, Ok(round));
                proxy.go_down(Cut::Reset);
                until(|| !pair.here.linked(&pair.there)).await;
                proxy.heal();
            }
            assert_eq!(clerk.send(Add(1)).await, Ok(6));
            // Both of these drop state of a peer, and log while they do so.
            pair.there.host.forget(pair.here.identity());
            pair.here.host.mark_peer_down(pair.there.identity(), "it was killed");
        });
        done.send(Subscriber::forward_to(None)).unwrap();
    });
    let events = finished
        .recv_timeout(PATIENCE + Duration::from_secs(5))
        .expect("no lock is held while an event is logged");
    scenario.join().unwrap();
    assert!(events >= 10, "links opened and broke: {events} events");
}
