//! Host that is decoding on this thread: addresses in a message bind to it.

use std::sync::Weak;

use scoped_tls::scoped_thread_local;

use super::{Host, HostShared};
use crate::config::InjectedBug;
use crate::registry::{DecodeScope, ErasedMailbox, HostContext};

// Thread-local, since serde passes no context to `Deserialize`.
scoped_thread_local!(static CURRENT: Host);

/// Makes `host` the current one while `work` runs.
pub(crate) fn within<R>(host: &Host, work: impl FnOnce() -> R) -> R {
    CURRENT.set(host, work)
}

/// Host that is decoding on this thread, if any.
pub(crate) fn current() -> Option<Host> {
    CURRENT.is_set().then(|| CURRENT.with(Clone::clone))
}

/// Decode context for the mailboxes of a host. It is weak, since the host owns the mailboxes.
pub(super) struct WeakHostContext(pub(super) Weak<HostShared>);

impl HostContext for WeakHostContext {
    fn with_host(&self, work: &mut dyn FnMut(&dyn DecodeScope)) {
        // Upgraded once for a whole drain, not for each message.
        work(&HostDecodeScope(self.0.upgrade().map(|shared| Host { shared })));
    }

    fn counts_changed(&self, actor: Weak<dyn ErasedMailbox>) {
        if let Some(shared) = self.0.upgrade() {
            shared.actors.note_changed(actor);
        }
    }

    fn injected_bug(&self) -> Option<InjectedBug> {
        self.0.upgrade()?.limits.injected_bug
    }
}

/// Decode scope of one drain; without a host once that has ended.
struct HostDecodeScope(Option<Host>);

impl DecodeScope for HostDecodeScope {
    fn within(&self, work: &mut dyn FnMut()) {
        match &self.0 {
            Some(host) => within(host, work),
            None => work(),
        }
    }
}
