//! Connection attempts to a name that resolves to several addresses ("happy eyeballs", RFC 8305).

use std::future::Future;
use std::net::SocketAddr;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use crate::config::NEXT_ADDRESS_AFTER;

/// Tries the addresses in their order and returns the first that answers.
///
/// The next attempt starts when the previous one has failed, or after [`NEXT_ADDRESS_AFTER`] beside it. If all
/// fail, returns their errors in the order in which they failed.
///
/// # Cancel safety
///
/// Dropping the future cancels all attempts.
pub(super) async fn first_to_answer<T, E, F>(
    addresses: &[SocketAddr],
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, T), Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let attempt = |address: SocketAddr| {
        let attempt = attempt(address);
        async move { attempt.await.map(|connected| (address, connected)) }
    };
    let (mut waiting, mut trying) = (addresses.iter().copied(), FuturesUnordered::new());
    let mut errors = Vec::new();
    let mut next_at = Instant::now();
    trying.extend(waiting.next().map(&attempt));
    // Earlier attempts go on beside the next ones: a slow address that works is better than none.
    loop {
        next_at += NEXT_ADDRESS_AFTER;
        tokio::select! {
            done = trying.next() => match done {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(error)) => errors.push(error),
                None => return Err(errors),
            },
            () = sleep_until(next_at), if waiting.len() > 0 => {}
        }
        // A failed attempt starts the next one immediately; the pause then counts from that start.
        next_at = Instant::now();
        trying.extend(waiting.next().map(&attempt));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn addresses<const N: usize>() -> [SocketAddr; N] {
        std::array::from_fn(|at| SocketAddr::from(([192, 0, 2, 1], 1 + at as u16)))
    }

    /// Attempt by port: 1 never answers, 2 refuses, 3 answers after a second, 4 answers immediately.
    async fn attempt(address: SocketAddr) -> Result<u16, u16> {
        match address.port() {
            1 => std::future::pending().await,
            2 => Err(2),
            3 => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(3)
            }
            port => Ok(port),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_delays_the_next_by_the_configured_pause() {
        let [silent, refusing, slow, quick] = addresses();
        let begin = Instant::now();
        assert_eq!(first_to_answer(&[silent, quick], attempt).await, Ok((quick, 4)));
        assert_eq!(begin.elapsed(), NEXT_ADDRESS_AFTER);

        let begin = Instant::now();
        assert_eq!(first_to_answer(&[refusing, quick, silent], attempt).await, Ok((quick, 4)));
        assert_eq!(begin.elapsed(), Duration::ZERO);

        assert_eq!(first_to_answer(&[slow, silent, refusing], attempt).await, Ok((slow, 3)));
    }

    #[tokio::test(start_paused = true)]
    async fn all_errors_are_returned_when_no_address_answers() {
        let [_, refusing, ..] = addresses::<4>();
        assert_eq!(first_to_answer(&[refusing, refusing], attempt).await, Err(vec![2, 2]));
        assert_eq!(first_to_answer(&[], attempt).await, Err(Vec::new()));
    }
}
