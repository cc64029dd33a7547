//! Progress of an upload, on standard error if that is a terminal.

use std::cell::Cell;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Fields of the bar: sent and total bytes, rate and remaining time.
const TEMPLATE: &str =
    "uploading [{bar:20}] {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";

/// Progress bar of an upload. Dropping it removes it from the terminal.
#[derive(Debug)]
pub(crate) struct UploadBar {
    bar: ProgressBar,
    /// False until the receiver has told how much it has already.
    is_begun: Cell<bool>,
}

impl UploadBar {
    /// Creates the bar of an upload of `bytes`; without a terminal nothing is ever shown.
    pub(crate) fn new(bytes: u64, is_terminal: bool) -> Self {
        Self::on(if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }, bytes)
    }

    fn on(target: ProgressDrawTarget, bytes: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(bytes), target);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, is_begun: Cell::new(false) }
    }

    /// Shows that the receiver has `bytes`.
    pub(crate) fn received(&self, bytes: u64) {
        if self.is_begun.replace(true) {
            self.bar.set_position(bytes);
        } else if Some(bytes) != self.bar.length() {
            // The part from an earlier upload is no part of the rate.
            self.bar.set_position(bytes);
            self.bar.reset_eta();
        }
    }
}

impl Drop for UploadBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// Terminal of 80 columns that records the written text.
    #[derive(Clone, Debug, Default)]
    struct Recorder(Arc<Mutex<String>>);

    impl Recorder {
        fn text(&self) -> String {
            self.0.lock().unwrap().clone()
        }
    }

    impl TermLike for Recorder {
        fn width(&self) -> u16 {
            80
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            self.write_str("<cleared>")
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn recorded(steps: &[u64]) -> String {
        let recorder = Recorder::default();
        let bar = UploadBar::on(ProgressDrawTarget::term_like(Box::new(recorder.clone())), 4 << 20);
        steps.iter().for_each(|bytes| bar.received(*bytes));
        drop(bar);
        recorder.text()
    }

    #[test]
    fn bar_has_bytes_rate_and_remaining_time_and_is_removed() {
        let text = recorded(&[1 << 20, 2 << 20]);
        assert!(
            text.contains("1.00 MiB/4.00 MiB") && text.contains("/s") && text.contains(" left"),
            "{text}"
        );
        assert!(text.trim_end().ends_with("<cleared>"), "{text}");
    }

    #[test]
    fn upload_without_anything_to_send_shows_no_bar() {
        assert!(!recorded(&[4 << 20]).contains("uploading"));
    }
}
