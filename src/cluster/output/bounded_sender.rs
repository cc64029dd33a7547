//! A bounded channel into which one puts things without being held up for long.

use std::future::{Future, ready};
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

/// Where to put things. When it was full for too long, it takes none before half of it is free: whoever
/// is slow all the time holds up nobody each time.
#[derive(Debug)]
pub(super) struct BoundedSender<T> {
    to: Sender<T>,
    /// How long to wait for room; for as long as it takes if it is none.
    patience: Option<Duration>,
    is_stalled: bool,
}

/// Why a thing was not put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no room.
    Full,
    /// Nobody takes anything any more.
    Closed,
}

impl<T> BoundedSender<T> {
    pub(super) fn new(to: Sender<T>, patience: Option<Duration>) -> Self {
        Self { to, patience, is_stalled: false }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.to.is_closed()
    }

    /// Whether the last item found no room in time.
    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    /// From now on nobody is held up: the next thing waits for room once more.
    pub(super) fn reset_stall(&mut self) {
        self.is_stalled = false;
    }

    pub(super) async fn send(&mut self, item: T) -> Result<(), Refused> {
        self.put_with(ready(item)).await
    }

    /// Puts what `item` gives, which may wait for room of another kind: both waits are one.
    pub(super) async fn put_with(&mut self, item: impl Future<Output = T>) -> Result<(), Refused> {
        if self.is_stalled && self.to.capacity() < self.to.max_capacity().div_ceil(2) {
            return Err(Refused::Full);
        }
        let putting = async {
            let slot = self.to.reserve().await.map_err(|_| Refused::Closed)?;
            slot.send(item.await);
            Ok(())
        };
        let result = match self.patience {
            Some(patience) => timeout(patience, putting).await.unwrap_or(Err(Refused::Full)),
            None => putting.await,
        };
        self.is_stalled = result == Err(Refused::Full);
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
    async fn one_that_is_full_holds_up_once_until_half_of_it_is_free() {
        let (to, mut from) = mpsc::channel(4);
        let mut outlet = BoundedSender::new(to, Some(LOG_STALL_MAX));
        let start = Instant::now();
        for item in 0..4 {
            outlet.send(item).await.unwrap();
        }
        assert_eq!(start.elapsed().as_millis(), 0);
        for item in 4..100 {
            assert_eq!(outlet.send(item).await, Err(Refused::Full));
        }
        assert_eq!(start.elapsed().as_millis(), LOG_STALL_MAX.as_millis());
        from.recv().await.unwrap();
        assert_eq!(outlet.send(100).await, Err(Refused::Full));
        outlet.reset_stall();
        outlet.send(101).await.unwrap();
        assert_eq!(outlet.send(102).await, Err(Refused::Full));
        from.recv().await.unwrap();
        from.recv().await.unwrap();
        outlet.send(103).await.unwrap();
        drop(from);
        assert_eq!(outlet.send(104).await, Err(Refused::Closed));
        assert!(outlet.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_waits_for_who_takes_it() {
        let (to, mut from) = mpsc::channel(1);
        let mut outlet = BoundedSender::new(to, Some(LOG_STALL_MAX));
        let taken = tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Some(item) = from.recv().await {
                taken.push(item);
            }
            taken
        });
        for item in 0..100 {
            outlet.send(item).await.unwrap();
        }
        drop(outlet);
        assert_eq!(taken.await.unwrap(), (0..100).collect::<Vec<_>>());
    }
}
