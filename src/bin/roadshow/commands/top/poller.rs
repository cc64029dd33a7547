//! Connection of `top` to the head: one request at a time, and a new connection after a loss.
//!
//! ```text
//! connected --lost--> back-off 0.5 s, 1 s, 2 s, 4 s, 8 s --connected and sampled--> connected
//!     |                  |
//!     +-- each interval  +-- `u`, another view or an action retries immediately
//! ```

use std::time::Duration;

use roadshow::admin::{Admin, AdminTransport};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::columns::Action;
use super::sample::{Sample, Wanted, take};
use crate::cli::cluster_args::AdminConnector;
use crate::error::CliResult;

/// First and longest pause between two attempts to reach the head; the pause doubles.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(8)];

/// Minimum ratio of a pause to the duration of the refresh before it.
///
/// Counting actors costs the head a scan. A large cluster is therefore refreshed less often, and the requests
/// take at most 5 % of the head's time.
const PAUSE_RATIO_MIN: u32 = 19;

/// Request of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Refresh,
    Act(Action),
}

/// Outcome for the screen.
#[derive(Clone, Debug)]
pub(super) enum Report {
    /// Boxed: it is much larger than the others.
    Sample(Box<Sample>),
    Lost {
        why: String,
        retry_in: Duration,
    },
    /// Outcome of an action, as a sentence.
    Acted(String),
}

/// Channels between the poller and the screen.
pub(super) struct PollerChannels {
    pub(super) wanted: watch::Receiver<Wanted>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) reports: mpsc::Sender<Report>,
}

/// Polls the head until the screen has closed its channels.
pub(super) async fn poll<D: AdminConnector>(
    connector: &D,
    client: Admin<D::Exchange>,
    interval: Duration,
    channels: PollerChannels,
) {
    let PollerChannels { mut wanted, mut orders, reports } = channels;
    let mut link = HeadLink { connector, client: Some(client), retry: RETRY_PAUSES[0] };
    let mut pause = Duration::ZERO;
    loop {
        let order = tokio::select! {
            () = tokio::time::sleep(pause) => Order::Refresh,
            order = orders.recv() => match order {
                Some(order) => order,
                None => return,
            },
            changed = wanted.changed() => match changed {
                Ok(()) => Order::Refresh,
                Err(_) => return,
            },
        };
        // Outside of `select!`: a request that is dropped halfway would leave its reply to the next one.
        if let Order::Act(action) = order
            && reports.send(Report::Acted(link.act(action).await)).await.is_err()
        {
            return;
        }
        let selection = wanted.borrow_and_update().clone();
        let begun = Instant::now();
        let report = match link.sample(&selection).await {
            Ok(sample) => {
                pause = interval.max(begun.elapsed() * PAUSE_RATIO_MIN);
                Report::Sample(Box::new(sample))
            }
            Err(failure) => {
                pause = link.back_off();
                Report::Lost { why: failure.to_string(), retry_in: pause }
            }
        };
        if reports.send(report).await.is_err() {
            return;
        }
    }
}

/// Connection to the head that is opened again after an error.
struct HeadLink<'a, D: AdminConnector> {
    connector: &'a D,
    client: Option<Admin<D::Exchange>>,
    /// Pause before the next attempt after a loss.
    retry: Duration,
}

impl<D: AdminConnector> HeadLink<'_, D> {
    async fn sample(&mut self, wanted: &Wanted) -> CliResult<Sample> {
        let client = self.client().await?;
        let sample = take(client, wanted).await?;
        self.retry = RETRY_PAUSES[0];
        Ok(sample)
    }

    async fn client(&mut self) -> CliResult<&mut Admin<D::Exchange>> {
        match self.client {
            Some(ref mut client) => Ok(client),
            ref mut none => Ok(none.insert(self.connector.head().await?)),
        }
    }

    /// Drops the connection, and returns the pause before the next attempt.
    fn back_off(&mut self) -> Duration {
        // After any error: a late reply would be read as the reply to the next request.
        self.client = None;
        let pause = self.retry;
        self.retry = (2 * pause).min(RETRY_PAUSES[1]);
        pause
    }

    /// Runs an action, and returns its outcome as a sentence.
    async fn act(&mut self, action: Action) -> String {
        let outcome = match self.client().await {
            Ok(client) => request(client, action).await,
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(done) => done,
            Err(failure) => {
                self.client = None;
                format!("failed: {failure}")
            }
        }
    }
}

async fn request<E: AdminTransport>(head: &mut Admin<E>, action: Action) -> CliResult<String> {
    Ok(match action {
        Action::KillActor(actor) => {
            head.kill(actor).await?;
            format!("asked the actor {actor} to end")
        }
        Action::StopJob(job) => {
            head.stop_job(job).await?;
            format!("stopped the job {job}")
        }
        Action::DrainNode(node) => {
            head.drain(node).await?;
            format!("the node {node} is draining")
        }
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::SocketAddr;

    use roadshow::admin::{AdminEndpoint, AdminError, AdminRequest};
    use roadshow::model::ActorKey;

    use super::*;
    use crate::commands::top::sample::View;
    use crate::test_cluster::{FakeCluster, TestTransport, head_address};

    /// Cluster whose head cannot be reached for the first attempts.
    struct Away {
        cluster: FakeCluster,
        attempts_left: Cell<u32>,
    }

    impl AdminConnector for Away {
        type Exchange = TestTransport;

        fn head_address(&self) -> SocketAddr {
            head_address()
        }

        async fn open(
            &self,
            endpoint: AdminEndpoint,
            address: SocketAddr,
        ) -> Result<Admin<TestTransport>, AdminError> {
            match self.attempts_left.get() {
                0 => self.cluster.open(endpoint, address).await,
                left => {
                    self.attempts_left.set(left - 1);
                    Err(AdminError::Unreachable("connection refused".to_owned()))
                }
            }
        }
    }

    type Screen = (watch::Sender<Wanted>, mpsc::Sender<Order>, mpsc::Receiver<Report>);

    fn channels() -> (PollerChannels, Screen) {
        let (want, wanted) = watch::channel(Wanted { view: View::Nodes, conditions: Vec::new() });
        let ((order, orders), (reports, reported)) = (mpsc::channel(1), mpsc::channel(1));
        (PollerChannels { wanted, orders, reports }, (want, order, reported))
    }

    async fn polled(cluster: &Away, screen: impl AsyncFnOnce(Screen)) {
        let (channels, ends) = channels();
        let client = cluster.cluster.head().await.unwrap();
        let poller = poll(cluster, client, Duration::from_secs(1), channels);
        tokio::join!(poller, screen(ends));
    }

    #[tokio::test(start_paused = true)]
    async fn lost_head_is_tried_again_with_growing_pauses() {
        let cluster = Away { cluster: FakeCluster::new(), attempts_left: Cell::new(3) };
        // Ends the first connection: the head rejects the first request.
        cluster.cluster.state().is_lost = true;
        polled(&cluster, async |(want, _order, mut reported)| {
            let mut pauses = Vec::new();
            let healed = loop {
                match reported.recv().await.unwrap() {
                    Report::Lost { retry_in, why } => {
                        pauses.push((retry_in.as_millis(), why.contains("refused")));
                        cluster.cluster.state().is_lost = false;
                    }
                    Report::Sample(sample) => break sample,
                    Report::Acted(text) => panic!("{text}"),
                }
            };
            assert_eq!(pauses, [(500, false), (1000, true), (2000, true), (4000, true)]);
            assert_eq!(healed.summary.nodes.len(), 3);
            drop(want);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn another_view_is_sampled_without_waiting_for_the_interval() {
        let cluster = Away { cluster: FakeCluster::new(), attempts_left: Cell::new(0) };
        polled(&cluster, async |(want, _order, mut reported)| {
            assert!(matches!(reported.recv().await, Some(Report::Sample(_))));
            let begun = Instant::now();
            want.send_modify(|wanted| wanted.view = View::Tasks);
            let Some(Report::Sample(sample)) = reported.recv().await else { panic!("no sample") };
            assert_eq!((sample.wanted.view, begun.elapsed()), (View::Tasks, Duration::ZERO));
            assert!(matches!(reported.recv().await, Some(Report::Sample(_))));
            assert_eq!(begun.elapsed(), Duration::from_secs(1));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn action_reaches_the_head_and_its_outcome_the_screen() {
        let cluster = Away { cluster: FakeCluster::new(), attempts_left: Cell::new(0) };
        polled(&cluster, async |(_want, order, mut reported)| {
            assert!(matches!(reported.recv().await, Some(Report::Sample(_))));
            order.send(Order::Act(Action::KillActor(ActorKey(1)))).await.unwrap();
            let Some(Report::Acted(text)) = reported.recv().await else { panic!("no outcome") };
            assert!(text.starts_with("asked the actor 0000000000000001 to end"), "{text}");
        })
        .await;
        assert!(cluster.cluster.requests().contains(&AdminRequest::Kill { actor: ActorKey(1) }));
    }
}
