//! Work of the workers: plain actix actors and plain functions.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use roadshow::prelude::*;

/// Counts visits of pages.
#[derive(Default, RemoteActor)]
#[remote(handles(Visit, Report))]
pub(crate) struct Visits {
    pages: HashMap<String, u64>,
}

impl Actor for Visits {
    type Context = Context<Self>;
}

impl Spawn for Visits {
    type Args = ();
    type Error = Infallible;

    fn spawn((): (), _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self::default())
    }
}

/// Counts a visit to a page; returns the page's visits.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(crate) struct Visit(pub(crate) String);

impl Handler<Visit> for Visits {
    type Result = u64;

    fn handle(&mut self, Visit(page): Visit, _ctx: &mut Context<Self>) -> u64 {
        let visits = self.pages.entry(page).or_default();
        *visits += 1;
        *visits
    }
}

/// Returns all visits after a delay; the actor handles other messages meanwhile.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(crate) struct Report {
    pub(crate) takes: Duration,
}

impl Handler<Report> for Visits {
    type Result = ResponseFuture<u64>;

    fn handle(&mut self, Report { takes }: Report, _ctx: &mut Context<Self>) -> ResponseFuture<u64> {
        let all = self.pages.values().sum();
        Box::pin(async move {
            tokio::time::sleep(takes).await;
            all
        })
    }
}

/// Squares a number; `None` on overflow.
#[roadshow::task]
pub(crate) fn square(n: u64) -> Option<u64> {
    n.checked_mul(n)
}

/// Divides; panics in the worker if `by` is 0.
#[roadshow::task]
pub(crate) fn quotient(n: u64, by: u64) -> u64 {
    n / by
}
