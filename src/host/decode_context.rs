//! Which host is decoding just now: the addresses in a message bind to it.

use std::sync::Weak;

use scoped_tls::scoped_thread_local;

use super::{Host, Shared};
use crate::config::InjectedBug;
use crate::registry::{DecodeScope, HostContext};

scoped_thread_local!(static CURRENT: Host);

/// Makes `host` the current one while `work` runs.
pub(crate) fn within<R>(host: &Host, work: impl FnOnce() -> R) -> R {
    CURRENT.set(host, work)
}

/// The host that is decoding on this thread.
pub(crate) fn current() -> Option<Host> {
    CURRENT.is_set().then(|| CURRENT.with(Clone::clone))
}

/// A host's scope as actors that it keeps reachable need it: without keeping the host.
pub(super) struct WeakHostContext(pub(super) Weak<Shared>);

impl HostContext for WeakHostContext {
    fn with_host(&self, work: &mut dyn FnMut(&dyn DecodeScope)) {
        work(&HostDecodeScope(self.0.upgrade().map(|shared| Host { shared })));
    }

    fn planted(&self) -> Option<InjectedBug> {
        self.0.upgrade()?.limits.injected_bug
    }
}

/// The same during a turn of an actor; nothing if the host has ended.
struct HostDecodeScope(Option<Host>);

impl DecodeScope for HostDecodeScope {
    fn within(&self, work: &mut dyn FnMut()) {
        match &self.0 {
            Some(host) => within(host, work),
            None => work(),
        }
    }
}
