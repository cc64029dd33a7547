//! Ends of hosts, for calls and watches that come after them.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::ENDED_HOSTS_MAX;
use crate::id::HostUid;
use crate::spec::End;

/// Ends of the last hosts that ended, oldest first.
#[derive(Debug, Default)]
pub(super) struct EndedHosts(VecDeque<(HostUid, Arc<End>)>);

impl EndedHosts {
    pub(super) fn add(&mut self, host: HostUid, end: Arc<End>) {
        // The first account of an end stands.
        if self.of(host).is_some() {
            return;
        }
        if self.0.len() >= ENDED_HOSTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((host, end));
    }

    pub(super) fn of(&self, host: HostUid) -> Option<End> {
        self.0.iter().rev().find(|(ended, _)| *ended == host).map(|(_, end)| End::clone(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{HostId, Incarnation};
    use crate::spec::EndReason;

    #[test]
    fn the_ends_of_the_last_hosts_are_kept_and_the_first_account_of_each_stands() {
        let host = |number| HostUid { host: HostId(number), incarnation: Incarnation(1) };
        let mut ended = EndedHosts::default();
        let end = |text: &str| Arc::new(End::new(EndReason::Exited(1), text));
        for number in 0..=ENDED_HOSTS_MAX as u64 {
            ended.add(host(number), end("first"));
            ended.add(host(number), end("second"));
        }
        assert_eq!((ended.of(host(0)), ended.0.len()), (None, ENDED_HOSTS_MAX));
        assert_eq!(ended.of(host(1)).unwrap().text, "first");
    }
}
