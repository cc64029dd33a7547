//! Worker process or thread, seen from inside: its entry point, its two hosts, and its control socket.
//!
//! [`entry`] is what the process runs, [`hosts`] serves actors and tasks, [`control_socket`] carries reports to the
//! process that started the worker. When that socket closes, the worker ends.

use std::net::{Ipv4Addr, SocketAddr};

pub(super) mod control_socket;
pub(super) mod entry;
pub(super) mod hosts;
pub(super) mod setup;
pub(super) mod stack;
pub(crate) mod statistics;
pub(super) mod user_thread;

/// Listening address of a local cluster's workers: a free port on loopback.
pub(in crate::cluster) const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
