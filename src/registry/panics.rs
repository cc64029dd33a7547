//! The text of a panic, for the caller whose message caused it.
//!
//! Where the delivery catches a panic itself, the text is in the payload. Where it cannot (a
//! future of actix's own, a timer, `started`), the actor's state is dropped with the calls it
//! had open; they learn why from here: from the hook while the thread unwinds, or from
//! [`with_panic_text`] where the host caught the panic of a whole actor.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::thread;

thread_local! {
    /// The text of the last panic on this thread.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
    /// The text of the panic that ends the actor which is being dropped just now.
    static CURRENT_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Installs the hook that keeps panics' texts, once a process, before the hook that was there.
pub fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
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

/// Runs `work`; a panic in it becomes its text.
///
/// # Errors
///
/// The text of the panic.
#[inline]
pub fn catch<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    debug_assert_eq!(crate::lock::held(), 0, "what may send messages runs under no lock of the library");
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(caught)
}

#[cold]
fn caught(payload: Box<dyn Any + Send>) -> String {
    let text = LAST.take().unwrap_or_else(|| text_of(payload.as_ref()));
    // A payload's own destructor may panic; its text is out already.
    let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(payload)));
    text
}

/// Goes on with a panic that was caught, so that it ends the actor. Nothing is printed again.
pub fn resume(text: String) -> ! {
    LAST.set(Some(text.clone()));
    panic::resume_unwind(Box::new(text))
}

/// Runs `end`, which drops what a panic left behind, so that dropped calls can tell the text.
pub fn with_panic_text(text: String, end: impl FnOnce()) {
    struct Restore(Option<String>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT_PANIC.set(self.0.take());
        }
    }
    let _restore = Restore(CURRENT_PANIC.replace(Some(text)));
    end();
}

/// The panic that is ending the current actor, if one is.
///
/// An actor that panics again while it is dropped ends by its first panic all the same.
pub(super) fn current() -> Option<String> {
    CURRENT_PANIC.with_borrow(Clone::clone).or_else(|| {
        let last = || LAST.with_borrow(Clone::clone).unwrap_or_else(|| NO_TEXT.to_owned());
        thread::panicking().then(last)
    })
}

const NO_TEXT: &str = "a panic whose payload is no text";

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
    fn a_caught_panic_gives_its_text() {
        let text = catch(|| panic!("number {}", 7)).unwrap_err();
        assert!(text.starts_with("number 7"), "{text}");
        assert_eq!(catch(|| panic::panic_any(1_u8)).unwrap_err().split(" (at").next(), Some(NO_TEXT));
    }

    #[test]
    fn what_is_dropped_in_the_wake_of_a_panic_knows_the_text() {
        assert_eq!(current(), None);
        with_panic_text("torn".into(), || assert_eq!(current().as_deref(), Some("torn")));
        assert_eq!(current(), None);
    }
}
