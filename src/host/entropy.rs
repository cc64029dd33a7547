//! Random numbers and wall clock of the host layer and of clusters.
//!
//! Both come from the operating system. A simulation replaces them on its thread, so that a seed decides them.

use std::time::{Duration, SystemTime};

/// Draws a random number, for ids and for jitter.
pub(crate) fn random_u64() -> u64 {
    #[cfg(feature = "sim")]
    if let Some(number) = simulated::random_u64() {
        return number;
    }
    getrandom::u64().expect("the operating system gives random numbers")
}

/// Time since 1970 by the wall clock.
pub(crate) fn unix_time() -> Duration {
    #[cfg(feature = "sim")]
    if let Some(now) = simulated::unix_time() {
        return now;
    }
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

/// Source of a simulation, for the thread that it runs on.
#[cfg(feature = "sim")]
pub(crate) mod simulated {
    use std::cell::Cell;
    use std::time::Duration;

    use tokio::time::Instant;

    /// Time at which every simulation begins.
    const BEGIN: Duration = Duration::from_secs(1_700_000_000);

    thread_local! {
        static SOURCE: Cell<Option<(u64, Instant)>> = const { Cell::new(None) };
    }

    /// Replaces the sources of this thread until it is dropped. The clock follows that of tokio.
    #[derive(Debug)]
    pub(crate) struct SimulatedEntropy(());

    impl SimulatedEntropy {
        pub(crate) fn begin(seed: u64) -> Self {
            SOURCE.set(Some((seed, Instant::now())));
            Self(())
        }
    }

    impl Drop for SimulatedEntropy {
        fn drop(&mut self) {
            SOURCE.set(None);
        }
    }

    pub(super) fn random_u64() -> Option<u64> {
        let (state, begin) = SOURCE.get()?;
        // SplitMix64, as for the latencies of the network in memory.
        let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        SOURCE.set(Some((state, begin)));
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(mixed ^ (mixed >> 31))
    }

    pub(super) fn unix_time() -> Option<Duration> {
        let (_, begin) = SOURCE.get()?;
        Some(BEGIN + begin.elapsed())
    }
}
