//! Text of a panic, for the caller whose message caused it.
//!
//! A panic that the delivery catches has its text in the payload. It cannot catch a panic in one of
//! actix's own futures, in a timer, or in `started`. There the actor is dropped together with its open
//! calls. Their responders take the text from here: from the panic hook while the thread unwinds, or from
//! [`with_panic_text`] where the host caught the panic of a whole actor.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::thread;

thread_local! {
    /// Text of the last panic on this thread.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Text of the panic that ended the actor which is being dropped.
    static CURRENT_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Installs the hook that records panic texts, once for each process, in front of the previous hook.
pub fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // The previous hook still prints the panic.
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let mut text = text_of(info.payload());
            if let Some(place) = info.location() {
                text = format!("{text} (at {place})");
            }
            LAST.with_borrow_mut(|last| *last = Some(text));
            previous(info);
        }));
        if cfg!(panic = "abort") {
            tracing::warn!(
                "this program is built with panic = \"abort\": a panic in a handler or a task ends the whole worker; \
                 build with panic = \"unwind\" to lose only the one actor"
            );
        }
    });
}

/// Runs `work`, and turns a panic into its text.
///
/// # Errors
///
/// The text of the panic.
#[inline]
pub fn catch<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    debug_assert_eq!(
        crate::lock::held(),
        0,
        "user code, which may send messages, runs under no lock of the library"
    );
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(caught)
}

#[cold]
fn caught(payload: Box<dyn Any + Send>) -> String {
    // The hook's text has the source location. It is missing if the program has replaced the hook.
    let text = LAST.take().unwrap_or_else(|| text_of(payload.as_ref()));
    // A payload's own destructor may panic, and its text is already copied.
    let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(payload)));
    text
}

/// Resumes a caught panic so that it ends the actor; the hook does not run again.
pub fn resume(text: String) -> ! {
    LAST.set(Some(text.clone()));
    panic::resume_unwind(Box::new(text))
}

/// Runs `end`, which drops the state left by a panic, so that dropped responders find the text.
pub fn with_panic_text(text: String, end: impl FnOnce()) {
    struct Restore(Option<String>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT_PANIC.set(self.0.take());
        }
    }
    // Restored even if `end` panics, and to the outer text if calls are nested.
    let _restore = Restore(CURRENT_PANIC.replace(Some(text)));
    end();
}

/// Text of the panic that is ending the current actor, if any.
///
/// For an actor that panics again while it is dropped, it is the text of the first panic.
pub(super) fn current() -> Option<String> {
    CURRENT_PANIC.with_borrow(Clone::clone).or_else(|| {
        // `LAST` may hold an earlier panic that was caught, so it counts only while the thread
        // unwinds.
        let last = || LAST.with_borrow(Clone::clone).unwrap_or_else(|| NO_TEXT.to_owned());
        thread::panicking().then(last)
    })
}

const NO_TEXT: &str = "a panic whose payload is not a text";

fn text_of(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| NO_TEXT.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caught_panic_yields_its_text() {
        let text = catch(|| panic!("number {}", 7)).unwrap_err();
        assert!(text.starts_with("number 7"), "{text}");
        assert_eq!(catch(|| panic::panic_any(1_u8)).unwrap_err().split(" (at").next(), Some(NO_TEXT));
    }

    #[test]
    fn values_dropped_after_a_panic_find_its_text() {
        assert_eq!(current(), None);
        with_panic_text("torn".into(), || assert_eq!(current().as_deref(), Some("torn")));
        assert_eq!(current(), None);
    }
}
