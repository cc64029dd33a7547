//! A subscriber of the library's log that does what a program's may: it sends messages.

use std::sync::{Mutex, Once};
use std::time::Duration;

use roadshow::prelude::*;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata};

use crate::cast::{Add, Clerk, Note};
use crate::hosts::{PATIENCE, run, until};
use crate::proxy::{Cut, Proxy};

/// Hears all that the library logs in this process.
pub(crate) struct Subscriber;

/// Whom each event is sent to, and how many were.
static SHIPPED: Mutex<Option<(RemoteAddr<Clerk>, usize)>> = Mutex::new(None);

impl Subscriber {
    /// Has this subscriber hear of everything, once a process.
    pub(crate) fn install() {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            let global = tracing::subscriber::set_global_default(Self);
            global.expect("no test of this executable has a subscriber of its own");
        });
    }

    fn ships_to(address: Option<RemoteAddr<Clerk>>) -> usize {
        let mut shipped = SHIPPED.lock().unwrap();
        let before = shipped.take().map_or(0, |(_, events)| events);
        *shipped = address.map(|address| (address, 0));
        before
    }
}

impl tracing::Subscriber for Subscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("roadshow")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let locks = roadshow::__private::locks_held();
        if locks > 0 {
            // A panic here might be caught.
            eprintln!("{} is logged under {locks} locks of the library", event.metadata().name());
            std::process::abort();
        }
        let address = {
            let mut shipped = SHIPPED.lock().unwrap();
            shipped.as_mut().map(|(address, events)| {
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
fn a_subscriber_of_the_log_may_send_to_the_very_peer_that_an_event_is_about() {
    // On a thread of its own, which a lock may hold for good.
    let (done, is_done) = std::sync::mpsc::sync_channel(1);
    let scenario = std::thread::spawn(move || {
        run(async {
            let (pair, proxy) = Proxy::between(roadshow::Limits::default()).await;
            let clerk = pair.serve(Clerk::default);
            Subscriber::ships_to(Some(clerk.clone()));
            for round in 1..=5 {
                assert_eq!(clerk.send(Add(1)).await, Ok(round));
                proxy.go_down(Cut::Reset);
                until(|| !pair.here.linked(&pair.there)).await;
                proxy.heal();
            }
            assert_eq!(clerk.send(Add(1)).await, Ok(6));
            pair.there.host.forget(pair.here.identity());
            pair.here.host.mark_peer_down(pair.there.identity(), "it was killed");
        });
        done.send(Subscriber::ships_to(None)).unwrap();
    });
    let events = is_done.recv_timeout(PATIENCE + Duration::from_secs(5)).expect("no lock holds the host up");
    scenario.join().unwrap();
    assert!(events >= 10, "links came up and broke: {events} events");
}
