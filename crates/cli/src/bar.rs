//! A progress bar on standard error, when somebody can see it.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use seedbank_client::progress::Progress;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Shows bytes, rate, files and new bytes.
pub(crate) struct Bar {
    bar: ProgressBar,
    files: AtomicU64,
    files_total: AtomicU64,
    fresh: AtomicU64,
    verb: &'static str,
}

impl Bar {
    /// A bar that begins with `verb`; invisible when `hidden` or when standard error is no terminal.
    pub(crate) fn new(verb: &'static str, hidden: bool) -> Bar {
        let target =
            if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(10) };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let style = ProgressStyle::with_template(
            "{prefix} {bar:24} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {msg} {eta}",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_prefix(verb);
        bar.enable_steady_tick(Duration::from_millis(200));
        Bar { bar, files: AtomicU64::new(0), files_total: AtomicU64::new(0), fresh: AtomicU64::new(0), verb }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn tell(&self) {
        // For a million small files, words that nobody sees would take a good part of the time.
        if self.bar.is_hidden() {
            return;
        }
        let (files, total) = (self.files.load(Ordering::Relaxed), self.files_total.load(Ordering::Relaxed));
        let fresh = self.fresh.load(Ordering::Relaxed);
        let files = format!("{files}/{total} files");
        self.bar.set_message(if self.verb == "push" {
            format!("{files}, {} new", crate::output::bytes(fresh))
        } else {
            files
        });
    }
}

impl Progress for Bar {
    fn total(&self, files: u64, bytes: u64) {
        self.files_total.store(files, Ordering::Relaxed);
        self.bar.set_length(bytes);
        self.tell();
    }

    fn advance(&self, files: u64, bytes: u64) {
        self.bar.inc(bytes);
        if files > 0 {
            self.files.fetch_add(files, Ordering::Relaxed);
            self.tell();
        }
    }

    fn fresh(&self, bytes: u64) {
        self.fresh.fetch_add(bytes, Ordering::Relaxed);
    }
}
