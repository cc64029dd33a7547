//! Restarts of an actor: their policy, and the recipe from which each incarnation is created.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::id::TypeHash;
use crate::wire::{self, DecodeError, EncodeError, Payload};

/// Policy by which an actor is created again after a failure.
///
/// Intensity and period have the meaning that they have in Erlang: an actor that fails more often than
/// [`at_most`](Self::at_most) times [`within`](Self::within) a period ends for good.
///
/// Only what the actor or its process does to itself counts: a panic, an error of its `spawn`, an exit, a crash,
/// want of memory. A kill from outside, the loss of the node and a drain do not count, and the restart after them
/// has no back-off.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
#[doc = include_str!("../remote/counter_example.txt")]
/// let policy = roadshow::Restart::on_failure().at_most(3).within(Duration::from_secs(10));
/// let counter = cluster.spawn::<Counter>(40).restart(policy).await?;
/// assert_eq!(counter.send(Add(2)).await?, 42);
/// # cluster.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a policy has no effect before it is given to a spawn request"]
pub struct Restart {
    pub(crate) failures_max: u32,
    pub(crate) period: Duration,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
    #[serde(default)]
    pub(crate) exclusive: bool,
    #[serde(default)]
    pub(crate) place: RestartPlace,
}

impl Restart {
    /// Restarts after each failure: at most 5 within 60 s, after a back-off of 50 ms that doubles up to 5 s.
    pub const fn on_failure() -> Self {
        Self {
            failures_max: 5,
            period: Duration::from_secs(60),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            exclusive: false,
            place: RestartPlace::Anywhere,
        }
    }

    /// Sets the number of failures within the period after which the actor is restarted; one more ends it.
    ///
    /// A number above 1000 means that none ends it.
    pub const fn at_most(self, failures: u32) -> Self {
        Self { failures_max: failures, ..self }
    }

    /// Sets the period in which failures are counted.
    pub const fn within(self, period: Duration) -> Self {
        Self { period, ..self }
    }

    /// Sets the delay of a restart after the first failure in the period, which doubles with each further one, and
    /// the longest delay.
    pub const fn backoff(self, delays: Range<Duration>) -> Self {
        Self { backoff_min: delays.start, backoff_max: delays.end, ..self }
    }

    /// Sets the node of each incarnation but the first.
    ///
    /// If no such node has room, the actor waits for one, and its row in the list of actors has the reason. A local
    /// cluster has a single node, so the place has no effect there.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("../remote/counter_example.txt")]
    /// use roadshow::{Restart, RestartPlace};
    ///
    /// // A node whose device is broken must not get the actor again.
    /// let policy = Restart::on_failure().on(RestartPlace::OtherNode);
    /// let counter = cluster.spawn::<Counter>(40).restart(policy).await?;
    /// assert_eq!(counter.send(Add(2)).await?, 42);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub const fn on(self, place: RestartPlace) -> Self {
        Self { place, ..self }
    }

    /// Never lets two incarnations of the actor handle messages at the same time, not even after a partition.
    ///
    /// An incarnation runs under a lease of its node, which the node's heartbeats to the head renew. It handles nothing
    /// once the lease has run out, and the next incarnation begins after that. Without this, an incarnation that was
    /// given up may run on until its node hears of it.
    ///
    /// A handler that runs when the lease ends cannot be interrupted. Its worker process is killed before the next
    /// incarnation begins, with all actors in it. A process that is suspended at that moment is killed when it
    /// continues, so an effect outside of the cluster may still come late:
    /// [`SpawnContext::incarnation`](crate::SpawnContext::incarnation) is a fencing token against it.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("../remote/counter_example.txt")]
    /// let policy = roadshow::Restart::on_failure().exclusive();
    /// let counter = cluster.spawn::<Counter>(40).restart(policy).await?;
    /// assert_eq!(counter.send(Add(2)).await?, 42);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub const fn exclusive(self) -> Self {
        Self { exclusive: true, ..self }
    }

    /// Delay of the restart after this number of failures in the period, at least one.
    pub(crate) fn delay(&self, failures: usize) -> Duration {
        // A shift by 31 is more than any sensible limit.
        let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(31).min(31);
        self.backoff_min.saturating_mul(1 << doublings).min(self.backoff_max)
    }
}

impl Default for Restart {
    fn default() -> Self {
        Self::on_failure()
    }
}

/// Node on which an actor restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RestartPlace {
    /// Any node that meets the constraints of the spawn.
    #[default]
    Anywhere,
    /// Any but the node of the incarnation before.
    OtherNode,
    /// The node of the first incarnation, for what is only there. After the loss of that node it never restarts.
    SameNode,
}

/// Strategy by which an actor's children restart together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Supervision {
    /// Only the child that failed restarts.
    #[default]
    OneForOne,
    /// All children restart.
    OneForAll,
    /// The child that failed restarts, and those that were spawned after it.
    RestForOne,
}

/// Type and encoded arguments of an actor, from which any worker can create it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// Hash of the actor type's name.
    pub kind: TypeHash,
    /// The arguments as MessagePack.
    message: Payload,
    /// Payloads of the arguments.
    attachments: Vec<Payload>,
}

impl Recipe {
    /// Encodes the arguments of an actor.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if they cannot be encoded, or take more than `limit` bytes.
    pub(crate) fn new<T: Serialize + DeserializeOwned>(
        kind: TypeHash,
        args: &T,
        limit: usize,
    ) -> Result<Self, EncodeError> {
        wire::encode_message(args, limit, |body| Self {
            kind,
            message: Bytes::copy_from_slice(body.message).into(),
            attachments: body.attachments.iter().cloned().map(Payload::from).collect(),
        })
    }

    /// Decodes the arguments.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if they are not those of the type.
    pub(crate) fn args<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        let attachments: Vec<Bytes> = self.attachments.iter().cloned().map(Bytes::from).collect();
        wire::decode_taking(&self.message, Some(&mut attachments.into()))
    }

    /// Size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.message.len() + self.attachments.iter().map(|payload| payload.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_up_to_its_limit() {
        let ms = Duration::from_millis;
        let policy = Restart::on_failure().backoff(ms(50)..ms(300));
        assert_eq!(
            [1, 2, 3, 4, 100].map(|failures| policy.delay(failures)),
            [50, 100, 200, 300, 300].map(ms)
        );
        // A lower limit above the upper one is cut.
        assert_eq!(policy.backoff(ms(50)..ms(10)).delay(1), ms(10));
    }

    #[test]
    fn arguments_and_their_payloads_survive_in_a_recipe() {
        let args = (7_u32, Payload::from(vec![1; 5000]), "text".to_owned(), Payload::from(vec![2; 10]));
        let recipe = Recipe::new(TypeHash(1), &args, 1 << 20).unwrap();
        assert!(recipe.len() > 5010);
        assert_eq!(recipe.args::<(u32, Payload, String, Payload)>().unwrap(), args);
        recipe.args::<(String, u32)>().unwrap_err();
        Recipe::new(TypeHash(1), &args, 5000).unwrap_err();
    }
}
