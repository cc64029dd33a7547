//! Dashboard of a head that was built without the feature `dashboard`: it cannot be served.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

use super::Head;
use crate::cluster::daemon::options::DashboardOptions;

/// Reason that no dashboard is served.
#[derive(Debug, Error)]
#[error(
    "this roadshow was built without the dashboard; build it with `cargo install --path . --features dashboard`, or \
     start the head with --include-dashboard 0"
)]
pub(super) struct DashboardError;

/// Dashboard that is served: there is none.
#[derive(Debug)]
pub(super) struct Dashboard(Infallible);

impl Dashboard {
    pub(super) fn start(_: &Arc<Head>, _: &DashboardOptions, _: &Path) -> Result<Self, DashboardError> {
        Err(DashboardError)
    }

    pub(super) fn link(&self) -> String {
        match self.0 {}
    }

    #[expect(clippy::unused_async, reason = "the dashboard that is served waits for its thread")]
    pub(super) async fn stop(&self) {
        match self.0 {}
    }
}
