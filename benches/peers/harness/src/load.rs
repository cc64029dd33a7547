//! Names of the loads.

use anyhow::{Result, bail};

/// Load that a client puts on its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Load {
    /// Single call in flight: latency.
    RoundTrip,
    /// 64 tasks, one call in flight each.
    Calls64,
    /// 1,024 tasks, one call in flight each.
    Calls1024,
    /// Sender of one-way messages, which yields after 16.
    OneWay16,
    /// Sender of one-way messages, which yields after 256.
    OneWay256,
    /// Eight tasks and eight actors: each task calls its own actor.
    Pairs8,
    /// Sixteen tasks that each call four servers together.
    FanOut4,
    /// 1,024 calls in flight, each with a timeout.
    Timeout1024,
    /// 1,024 calls in flight, each with a retry policy.
    Retry1024,
    /// Sixteen tasks that each spawn an actor in the server and call it once.
    Spawns16,
    /// Eight tasks that send 1 KiB, and get it back.
    Echo1K,
    /// The same with 64 KiB.
    Echo64K,
    /// The same with 1 MiB.
    Echo1M,
    /// 1 KiB in the form that a newcomer writes: `Vec<u8>`, without an attribute.
    Plain1K,
    /// The same with 64 KiB.
    Plain64K,
    /// The same with 1 MiB.
    Plain1M,
    /// 64 small requests in flight, each with a reply of 1 KiB.
    Reply1K,
    /// Four lists of `String` in flight.
    Words,
    /// The same words in the framework's own type for lists of words.
    WordList,
}

impl Load {
    /// All loads, in the order in which a session runs them.
    ///
    /// Spawns come last, because their actors stay and take memory.
    pub const ALL: [Self; 19] = [
        Self::RoundTrip,
        Self::Calls64,
        Self::Calls1024,
        Self::Pairs8,
        Self::FanOut4,
        Self::Timeout1024,
        Self::Retry1024,
        Self::OneWay16,
        Self::OneWay256,
        Self::Reply1K,
        Self::Echo1K,
        Self::Echo64K,
        Self::Echo1M,
        Self::Plain1K,
        Self::Plain64K,
        Self::Plain1M,
        Self::Words,
        Self::WordList,
        Self::Spawns16,
    ];

    /// Name on the command line and in the output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundTrip => "round-trip",
            Self::Calls64 => "calls-64",
            Self::Calls1024 => "calls-1024",
            Self::OneWay16 => "one-way-16",
            Self::OneWay256 => "one-way-256",
            Self::Pairs8 => "pairs-8",
            Self::FanOut4 => "fan-out-4",
            Self::Timeout1024 => "timeout-1024",
            Self::Retry1024 => "retry-1024",
            Self::Spawns16 => "spawns-16",
            Self::Echo1K => "echo-1k",
            Self::Echo64K => "echo-64k",
            Self::Echo1M => "echo-1m",
            Self::Plain1K => "plain-1k",
            Self::Plain64K => "plain-64k",
            Self::Plain1M => "plain-1m",
            Self::Reply1K => "reply-1k",
            Self::Words => "words",
            Self::WordList => "word-list",
        }
    }

    /// Finds a load by its name.
    ///
    /// # Errors
    ///
    /// There is no such load; the error lists all names.
    pub fn parse(name: &str) -> Result<Self> {
        let Some(load) = Self::ALL.into_iter().find(|load| load.name() == name) else {
            let names: Vec<_> = Self::ALL.iter().map(|load| load.name()).collect();
            bail!("there is no load `{name}`; the loads are {}", names.join(", "));
        };
        Ok(load)
    }

    /// Servers that the load needs.
    #[must_use]
    pub fn servers(self) -> usize {
        if self == Self::FanOut4 { 4 } else { 1 }
    }

    /// Bytes of one message's payload, where the load is about them.
    #[must_use]
    pub fn bytes(self) -> Option<usize> {
        match self {
            Self::Echo1K | Self::Plain1K | Self::Reply1K => Some(1 << 10),
            Self::Echo64K | Self::Plain64K => Some(64 << 10),
            Self::Echo1M | Self::Plain1M => Some(1 << 20),
            _ => None,
        }
    }
}
