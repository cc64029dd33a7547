//! Options of the head's dashboard, and notes about it.

use std::net::{IpAddr, Ipv4Addr};

use roadshow::daemon::{DashboardOptions, DashboardStatus, HAS_DASHBOARD};
use roadshow::internals::config::DASHBOARD_PORT;

use super::{StartArgs, host_resources};
use crate::error::{CliError, CliResult};

/// Options of the dashboard that the arguments ask for, with the address of the head's node.
pub(super) fn options(arguments: &StartArgs, node: IpAddr) -> CliResult<Option<DashboardOptions>> {
    options_with(arguments, node, HAS_DASHBOARD)
}

fn options_with(
    arguments: &StartArgs,
    node: IpAddr,
    has_dashboard: bool,
) -> CliResult<Option<DashboardOptions>> {
    let host = arguments.dashboard_host.unwrap_or(Ipv4Addr::LOCALHOST.into());
    if !arguments.include_dashboard.unwrap_or(has_dashboard && host.is_loopback()) {
        return Ok(None);
    }
    if !has_dashboard {
        return Err(CliError::usage(
            "this roadshow was built without the dashboard",
            "build it with `cargo install --path . --features dashboard`, or leave out --include-dashboard",
        ));
    }
    // A link with 0.0.0.0 leads nowhere, so it names the address of the node.
    let link_host = if host.is_unspecified() { node } else { host };
    // A server of the loopback interface has no other name: one that resolves to it may be another site's.
    let names = match host.is_loopback() {
        true => Vec::new(),
        false => vec![node.to_string(), host_resources::hostname()],
    };
    Ok(Some(DashboardOptions {
        host,
        port: arguments.dashboard_port.unwrap_or(DASHBOARD_PORT),
        is_required: asks(arguments),
        link_host: link_host.to_string(),
        names,
    }))
}

/// Returns true if the command asks for the dashboard. Otherwise a port that is taken is no error.
fn asks(arguments: &StartArgs) -> bool {
    arguments.include_dashboard == Some(true)
        || arguments.dashboard_host.is_some()
        || arguments.dashboard_port.is_some()
}

/// Note about a dashboard that is not served.
pub(super) fn note(arguments: &StartArgs, status: &DashboardStatus) -> Option<String> {
    match status {
        DashboardStatus::Serving { .. } => None,
        DashboardStatus::Unavailable { why } => Some(format!("warning: {why}")),
        DashboardStatus::Off if !asks(arguments) => None,
        DashboardStatus::Off if arguments.address.is_some() => {
            Some("note: the head serves the dashboard; its options have no effect on other nodes".to_owned())
        }
        DashboardStatus::Off if arguments.include_dashboard == Some(false) => None,
        DashboardStatus::Off if !HAS_DASHBOARD => Some(
            "note: this roadshow was built without the dashboard, so its options have no effect".to_owned(),
        ),
        DashboardStatus::Off => Some(
            "note: the dashboard is off: at an address that is not loopback it needs --include-dashboard 1"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));

    fn arguments(given: &[&str]) -> StartArgs {
        let command = StartArgs::augment_args(clap::Command::new("start"));
        let matches = command.get_matches_from([&["start", "--head"], given].concat());
        StartArgs::from_arg_matches(&matches).unwrap()
    }

    fn options(given: &[&str]) -> Option<DashboardOptions> {
        options_with(&arguments(given), NODE, true).unwrap()
    }

    #[test]
    fn dashboard_is_on_at_loopback_and_elsewhere_only_on_request() {
        let served = options(&[]).unwrap();
        assert_eq!((served.host.to_string(), served.port), ("127.0.0.1".to_owned(), 8265));
        assert!(!served.is_required && served.names.is_empty());
        assert!(options(&["--include-dashboard=1"]).unwrap().is_required);
        assert!(options(&["--dashboard-port=0"]).unwrap().is_required);
        assert_eq!(options(&["--include-dashboard=0"]), None);
        assert_eq!(options(&["--dashboard-host=0.0.0.0"]), None);
        let everywhere = options(&["--dashboard-host=0.0.0.0", "--include-dashboard=1"]).unwrap();
        assert_eq!(everywhere.link_host, "10.0.0.5");
        assert!(everywhere.names.contains(&"10.0.0.5".to_owned()));
    }

    #[test]
    fn command_without_the_feature_refuses_a_dashboard_and_says_how_to_build_it() {
        let refused = options_with(&arguments(&["--include-dashboard=1"]), NODE, false).unwrap_err();
        assert!(refused.to_string().contains("--features dashboard"), "{refused}");
        assert_eq!(options_with(&arguments(&[]), NODE, false), Ok(None));
    }

    #[test]
    fn dashboard_that_is_not_served_has_a_note() {
        let off = |given: &[&str]| note(&arguments(given), &DashboardStatus::Off);
        assert_eq!(off(&[]), None);
        assert_eq!(off(&["--include-dashboard=0"]), None);
        assert!(off(&["--dashboard-host=0.0.0.0"]).is_some());
        let why = "the port is taken".to_owned();
        let taken = note(&arguments(&[]), &DashboardStatus::Unavailable { why });
        assert_eq!(taken.as_deref(), Some("warning: the port is taken"));
    }
}
