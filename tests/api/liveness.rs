//! Whether the other host lives is not for handlers to say: those that compute cost no link.

use std::time::Duration;

use roadshow::host::fresh_identity;
use roadshow::id::{CallId, HostUid};
use roadshow::prelude::*;
use roadshow::wire::{Frame, Heartbeat, Purpose, Refusal, Reply, Resume};
use roadshow::{Limits, Request};
use tokio::net::TcpListener;

use crate::cast::{Add, Block, Clerk, Hold, Notes, Release};
use crate::hosts::{Gate, PATIENCE, Pair, Plan, TestHost, let_pass, limits, run};
use crate::proxy::links;
use crate::raw::{Raw, body_of};

/// After so long a silence a link is cut. Long enough for a busy machine to run a thread that is due.
const LOST: Duration = Duration::from_millis(300);

fn impatient() -> Limits {
    limits(|limits| {
        limits.heartbeat_interval = LOST / 10;
        limits.heartbeat_timeout = LOST;
    })
}

/// Two hosts with a call under way, and handlers that block the threads on which the link is read.
struct Computing {
    pair: Pair,
    gate: Gate,
    near: RemoteAddr<Clerk>,
    held: Request<Hold>,
    answered: bool,
}

impl Computing {
    async fn on(here: bool, there: bool) -> Self {
        let (pair, gate) = (Pair::with(impatient()).await, Gate::default());
        let near = pair.there.serve(Clerk::at(&gate));
        let held = pair.here.cluster.bind(&near).try_send(Hold(1)).unwrap();
        while !near.send(Notes).await.unwrap().contains(&1) {}
        if here {
            pair.here.serve(Clerk::at(&gate)).do_send(Block);
        }
        if there {
            near.do_send(Block);
        }
        gate.reached_by(usize::from(here) + usize::from(there)).await;
        if !there {
            // The answer comes while nobody reads it.
            assert_eq!(near.send(Release(1)).await, Ok(true));
        }
        Self { pair, gate, near, held, answered: !there }
    }

    async fn ends_on_its_first_link(self) {
        self.gate.open();
        if !self.answered {
            assert_eq!(self.near.send(Release(1)).await, Ok(true));
        }
        assert_eq!(self.held.await, Ok(1));
        let Pair { here, there } = &self.pair;
        assert_eq!((links(here, there), links(there, here)), (1, 1));
    }
}

#[test]
fn a_link_is_kept_while_handlers_compute_for_ten_times_as_long_as_it_may_be_silent() {
    run(async {
        let called = Computing::on(false, true).await;
        let caller = Computing::on(true, false).await;
        let both = Computing::on(true, true).await;
        let_pass(10 * LOST).await;
        called.ends_on_its_first_link().await;
        caller.ends_on_its_first_link().await;
        both.ends_on_its_first_link().await;
    });
}

/// A peer by hand that a host has called over its first link.
struct Called {
    site: TestHost,
    listener: TcpListener,
    identity: HostUid,
    link: Raw,
    call: (CallId, Request<Add>),
}

impl Called {
    async fn over_a_link(limits: Limits) -> Self {
        let site = Plan { limits, ..Plan::default() }.start().await;
        let (listener, identity) = Raw::listen_for(&site).await;
        let clerk: RemoteAddr<Clerk> = site.cluster.bind(&Raw::addr_of(identity, 1));
        let request = clerk.try_send(Add(1)).unwrap();
        let mut link = Raw::accept(&listener, identity).await;
        let Some(Frame::Call(call)) = link.read().await else { panic!("it is called") };
        Self { site, listener, identity, link, call: (call.call, request) }
    }

    /// The host cuts the link, makes another for the same session, and hears the answer over that.
    async fn expects_another_link(mut self) {
        assert_eq!(self.link.read().await, None, "the link is cut");
        let resume = Resume { epoch: 0, received: 1, ..Resume::default() };
        let mut again = Raw::accept_at(&self.listener, self.identity, resume).await;
        assert_eq!((again.peer.purpose, again.peer.replaces), (Purpose::Link, self.link.peer.link));
        let (call, request) = self.call;
        again.write(Frame::Reply(Reply { call, body: body_of(&1) })).await;
        assert_eq!(request.await, Ok(1));
        assert!(self.site.host.snapshot().peers[0].links > 1);
    }
}

#[test]
fn a_peer_that_answers_no_heartbeat_is_dialled_again() {
    run(async {
        let called = Called::over_a_link(impatient()).await;
        let mut pulse = Raw::accept(&called.listener, called.identity).await;
        assert_eq!((pulse.peer.purpose, pulse.peer.link), (Purpose::Heartbeat, called.link.peer.link));
        assert_eq!(pulse.next().await, Some(Frame::Heartbeat(Heartbeat)));
        called.expects_another_link().await;
        assert_eq!(pulse.next().await, None);
    });
}

#[test]
fn a_peer_that_has_the_link_no_more_is_dialled_again_at_once() {
    run(async {
        let limits = limits(|limits| {
            limits.heartbeat_interval = LOST / 10;
            limits.heartbeat_timeout = 2 * PATIENCE;
        });
        let called = Called::over_a_link(limits).await;
        let refused = Raw::refuse(&called.listener, called.identity, Refusal::Stale).await;
        assert_eq!((refused.purpose, refused.link), (Purpose::Heartbeat, called.link.peer.link));
        called.expects_another_link().await;
    });
}

#[test]
fn a_link_is_not_cut_by_the_word_of_one_that_has_proved_nothing() {
    run(async {
        let limits = limits(|limits| {
            limits.heartbeat_interval = LOST / 10;
            limits.heartbeat_timeout = 2 * PATIENCE;
        });
        let mut called = Called::over_a_link(limits).await;
        for _ in 0..3 {
            Raw::refuse_unproven(&called.listener, Refusal::Stale, "who are you").await;
        }
        // The pulse is tried again, and the link is the same.
        let pulse = Raw::accept(&called.listener, called.identity).await;
        assert_eq!((pulse.peer.purpose, pulse.peer.link), (Purpose::Heartbeat, called.link.peer.link));
        let (call, request) = called.call;
        called.link.write(Frame::Reply(Reply { call, body: body_of(&1) })).await;
        assert_eq!(request.await, Ok(1));
        assert_eq!(called.site.host.snapshot().peers[0].links, 1);
    });
}

#[test]
fn a_link_whose_dialler_sends_no_heartbeat_is_cut_and_the_session_waits_for_the_next() {
    run(async {
        let site = Plan { limits: impatient(), ..Plan::default() }.start().await;
        let identity = fresh_identity();
        let mut link = Raw::connect_at(&site, identity, 1, Resume::default()).await;
        let clerk: RemoteAddr<Clerk> = site.cluster.bind(&Raw::addr_of(identity, 1));
        let request = clerk.try_send(Add(1)).unwrap();
        let Some(Frame::Call(call)) = link.read().await else { panic!("it is called") };
        assert_eq!(link.read().await, None, "the link is cut");
        let mut again =
            Raw::connect_at(&site, identity, 2, Resume { epoch: 0, received: 1, ..Resume::default() }).await;
        again.write(Frame::Reply(Reply { call: call.call, body: body_of(&1) })).await;
        assert_eq!(request.await, Ok(1));
    });
}
