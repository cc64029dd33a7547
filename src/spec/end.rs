//! End of an actor, a worker, a node or a job: its reason for programs, and its text for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// End of something in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Reason, for programs.
    pub reason: EndReason,
    /// Explanation, for people.
    pub text: String,
}

/// Reason of an end.
///
/// An actor that ends with its worker or its node has the reason of that end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EndReason {
    /// End by itself, without an error.
    Stopped,
    /// End on request: an address's `stop`, `Cluster::kill`, a command.
    Killed,
    /// A handler or another part of the actor panicked.
    Panicked,
    /// The actor's `spawn` returned an error.
    Refused,
    /// The worker process exited with this code.
    Exited(i32),
    /// A signal with this number ended the worker process.
    Signalled(i32),
    /// The kernel killed the worker process for want of memory.
    OutOfMemory,
    /// Its worker had too little memory left for a new actor.
    LowMemory,
    /// The node was lost: it sent no heartbeats, or its agent ended.
    NodeLost,
    /// The cluster ended it, for example since its node is drained, or since it was not created in time.
    Evicted,
    /// The lease of its node ran out, and it is [exclusive](crate::Restart::exclusive).
    LeaseExpired,
    /// Its stored state cannot be read or applied.
    StateFailed,
    /// Its job ended.
    JobEnded,
    /// Its parent ended, or something that it is linked with.
    Linked,
    /// Earlier end, whose reason is no longer known.
    Unknown,
}

impl End {
    pub(crate) fn new(reason: EndReason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }

    /// Cuts the text, which a program may have made, to a length.
    pub(crate) fn cut(&mut self, bytes_max: usize) {
        if self.text.len() > bytes_max {
            let end = (0..=bytes_max).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or_default();
            self.text.truncate(end);
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl EndReason {
    /// True if the actor or its process failed by itself: a panic, a refusal, an exit or a signal, want of memory.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Panicked
                | Self::Refused
                | Self::Exited(_)
                | Self::Signalled(_)
                | Self::OutOfMemory
                | Self::LowMemory
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let mut end = End::new(EndReason::Panicked, "aéé");
        end.cut(5);
        assert_eq!(end.text, "aéé");
        end.cut(4);
        assert_eq!(end.text, "aé");
    }
}
