//! Liveness: heartbeats are independent of handlers, so a computing handler costs no link.

use std::time::Duration;

use roadshow::internals::host::fresh_identity;
use roadshow::internals::id::{CallId, HostUid};
use roadshow::internals::wire::{Frame, Heartbeat, Purpose, Refusal, Reply, Resume};
use roadshow::prelude::*;
use roadshow::{Limits, Request};
use tokio::net::TcpListener;

use crate::fixtures::{Add, Block, Clerk, Hold, Notes, Release};
use crate::hosts::{Gate, PATIENCE, Pair, Plan, TestHost, limits, run, wait_at_least};
use crate::proxy::links;
use crate::raw::{Raw, body_of};

/// Heartbeat timeout of these hosts, long enough for a busy machine to schedule a ready thread.
const LOST: Duration = Duration::from_millis(300);

fn short_timeouts() -> Limits {
    limits(|limits| {
        limits.heartbeat_interval = LOST / 10;
        limits.heartbeat_timeout = LOST;
    })
}

/// Two hosts with an open call, and handlers that block the threads on which the link is read.
struct Computing {
    pair: Pair,
    gate: Gate,
    near: RemoteAddr<Clerk>,
    held: Request<Hold>,
    answered: bool,
}

impl Computing {
    async fn on(here: bool, there: bool) -> Self {
        let (pair, gate) = (Pair::with(short_timeouts()).await, Gate::default());
        let near = pair.there.serve(Clerk::at(&gate));
        let held = pair.here.cluster.bind(&near).try_send(Hold(1)).unwrap();
        while !near.send(Notes).await.unwrap().contains(&1) {}
        if here {
            // This actor runs on the thread that reads the link.
            pair.here.serve(Clerk::at(&gate)).do_send(Block);
        }
        if there {
            near.do_send(Block);
        }
        gate.reached_by(usize::from(here) + usize::from(there)).await;
        if !there {
            // The answer arrives while the caller's thread is blocked.
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
        // A second link would mean that the first was given up.
        assert_eq!((links(here, there), links(there, here)), (1, 1));
    }
}

#[test]
fn a_link_survives_handlers_that_compute_for_ten_times_the_heartbeat_timeout() {
    run(async {
        let called = Computing::on(false, true).await;
        let caller = Computing::on(true, false).await;
        let both = Computing::on(true, true).await;
        // One wait for all three cases, since they can compute at the same time.
        wait_at_least(10 * LOST).await;
        called.ends_on_its_first_link().await;
        caller.ends_on_its_first_link().await;
        both.ends_on_its_first_link().await;
    });
}

/// Scripted peer that a host has called over its first link.
struct CalledPeer {
    site: TestHost,
    listener: TcpListener,
    identity: HostUid,
    link: Raw,
    call: (CallId, Request<Add>),
}

impl CalledPeer {
    async fn over_a_link(limits: Limits) -> Self {
        let site = Plan { limits, ..Plan::default() }.start().await;
        let (listener, identity) = Raw::listen_for(&site).await;
        let clerk: RemoteAddr<Clerk> = site.cluster.bind(&Raw::addr_of(identity, 1));
        let request = clerk.try_send(Add(1)).unwrap();
        let mut link = Raw::accept(&listener, identity).await;
        let Some(Frame::Call(call)) = link.read().await else { panic!("the peer is called") };
        Self { site, listener, identity, link, call: (call.call, request) }
    }

    /// Expects the host to cut the link and to open another for the same session, and answers over that.
    async fn expects_another_link(mut self) {
        assert_eq!(self.link.read().await, None, "the link is cut");
        // Same epoch: the session resumes, and the call must not be sent again.
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
fn a_peer_that_answers_no_heartbeat_is_redialled() {
    run(async {
        let called = CalledPeer::over_a_link(short_timeouts()).await;
        let mut heartbeat = Raw::accept(&called.listener, called.identity).await;
        assert_eq!(
            (heartbeat.peer.purpose, heartbeat.peer.link),
            (Purpose::Heartbeat, called.link.peer.link)
        );
        assert_eq!(heartbeat.next().await, Some(Frame::Heartbeat(Heartbeat)));
        called.expects_another_link().await;
        // A heartbeat connection ends with its link.
        assert_eq!(heartbeat.next().await, None);
    });
}

#[test]
fn a_peer_that_has_lost_the_link_is_redialled_immediately() {
    run(async {
        let limits = limits(|limits| {
            limits.heartbeat_interval = LOST / 10;
            // A timeout longer than the test: only the refusal of the heartbeat can end the link.
            limits.heartbeat_timeout = 2 * PATIENCE;
        });
        let called = CalledPeer::over_a_link(limits).await;
        let heartbeat = Raw::refuse(&called.listener, called.identity, Refusal::Stale).await;
        assert_eq!((heartbeat.purpose, heartbeat.link), (Purpose::Heartbeat, called.link.peer.link));
        called.expects_another_link().await;
    });
}

#[test]
fn an_unauthenticated_refusal_does_not_end_a_link() {
    run(async {
        let limits = limits(|limits| {
            limits.heartbeat_interval = LOST / 10;
            limits.heartbeat_timeout = 2 * PATIENCE;
        });
        let mut called = CalledPeer::over_a_link(limits).await;
        for _ in 0..3 {
            Raw::refuse_unproven(&called.listener, Refusal::Stale, "who are you").await;
        }
        // The heartbeat connection is dialled again, and the link is the same.
        let heartbeat = Raw::accept(&called.listener, called.identity).await;
        assert_eq!(
            (heartbeat.peer.purpose, heartbeat.peer.link),
            (Purpose::Heartbeat, called.link.peer.link)
        );
        let (call, request) = called.call;
        called.link.write(Frame::Reply(Reply { call, body: body_of(&1) })).await;
        assert_eq!(request.await, Ok(1));
        // Otherwise anyone who reaches the port could end links.
        assert_eq!(called.site.host.snapshot().peers[0].links, 1);
    });
}

#[test]
fn a_link_whose_dialler_sends_no_heartbeat_is_cut_and_its_session_resumes_on_the_next() {
    run(async {
        let site = Plan { limits: short_timeouts(), ..Plan::default() }.start().await;
        let identity = fresh_identity();
        let mut link = Raw::connect_at(&site, identity, 1, Resume::default()).await;
        let clerk: RemoteAddr<Clerk> = site.cluster.bind(&Raw::addr_of(identity, 1));
        let request = clerk.try_send(Add(1)).unwrap();
        let Some(Frame::Call(call)) = link.read().await else { panic!("the peer is called") };
        assert_eq!(link.read().await, None, "the link is cut");
        let mut again =
            Raw::connect_at(&site, identity, 2, Resume { epoch: 0, received: 1, ..Resume::default() }).await;
        again.write(Frame::Reply(Reply { call: call.call, body: body_of(&1) })).await;
        assert_eq!(request.await, Ok(1));
    });
}
