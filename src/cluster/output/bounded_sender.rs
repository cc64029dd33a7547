//! Sender of a bounded channel that waits for a limited time only.

use std::future::{Future, ready};
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

/// Sender that drops an item if there is no room within a timeout.
///
/// After a timeout it is stalled: it drops every item immediately until half of the channel is free. A receiver that
/// is slow all the time thus delays the sender once, and not once for each item.
#[derive(Debug)]
pub(super) struct BoundedSender<T> {
    to: Sender<T>,
    /// Longest wait for room; `None` waits without limit.
    room_timeout: Option<Duration>,
    is_stalled: bool,
}

/// Reason for which an item was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotSent {
    /// The channel had no room in time.
    Full,
    /// The receiver is gone.
    Closed,
}

impl<T> BoundedSender<T> {
    pub(super) fn new(to: Sender<T>, room_timeout: Option<Duration>) -> Self {
        Self { to, room_timeout, is_stalled: false }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.to.is_closed()
    }

    /// Reports that the last item found no room in time.
    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    /// Ends the stall: the next item waits for room again.
    pub(super) fn reset_stall(&mut self) {
        self.is_stalled = false;
    }

    pub(super) async fn send(&mut self, item: T) -> Result<(), NotSent> {
        self.send_with(ready(item)).await
    }

    /// Sends the result of `item`, which may wait for room of another kind; one timeout covers both waits.
    pub(super) async fn send_with(&mut self, item: impl Future<Output = T>) -> Result<(), NotSent> {
        if self.is_stalled && self.to.capacity() < self.to.max_capacity().div_ceil(2) {
            return Err(NotSent::Full);
        }
        let sending = async {
            let slot = self.to.reserve().await.map_err(|_| NotSent::Closed)?;
            slot.send(item.await);
            Ok(())
        };
        let result = match self.room_timeout {
            Some(room_timeout) => timeout(room_timeout, sending).await.unwrap_or(Err(NotSent::Full)),
            None => sending.await,
        };
        self.is_stalled = result == Err(NotSent::Full);
        result
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;
    use crate::config::LOG_STALL_MAX;

    #[tokio::test(start_paused = true)]
    async fn a_full_channel_delays_the_sender_once_until_half_of_it_is_free() {
        let (to, mut from) = mpsc::channel(4);
        let mut sender = BoundedSender::new(to, Some(LOG_STALL_MAX));
        let start = Instant::now();
        for item in 0..4 {
            sender.send(item).await.unwrap();
        }
        assert_eq!(start.elapsed().as_millis(), 0);
        for item in 4..100 {
            assert_eq!(sender.send(item).await, Err(NotSent::Full));
        }
        assert_eq!(start.elapsed().as_millis(), LOG_STALL_MAX.as_millis());
        from.recv().await.unwrap();
        assert_eq!(sender.send(100).await, Err(NotSent::Full));
        sender.reset_stall();
        sender.send(101).await.unwrap();
        assert_eq!(sender.send(102).await, Err(NotSent::Full));
        from.recv().await.unwrap();
        from.recv().await.unwrap();
        sender.send(103).await.unwrap();
        drop(from);
        assert_eq!(sender.send(104).await, Err(NotSent::Closed));
        assert!(sender.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_waits_for_a_receiver_that_keeps_up() {
        let (to, mut from) = mpsc::channel(1);
        let mut sender = BoundedSender::new(to, Some(LOG_STALL_MAX));
        let taken = tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Some(item) = from.recv().await {
                taken.push(item);
            }
            taken
        });
        for item in 0..100 {
            sender.send(item).await.unwrap();
        }
        drop(sender);
        assert_eq!(taken.await.unwrap(), (0..100).collect::<Vec<_>>());
    }
}
