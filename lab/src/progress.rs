//! How far a load is: a bar on a terminal, below the lines that are told; elsewhere the lines alone.

use std::fmt::Display;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

/// How often the bar moves.
const REDRAWN: Duration = Duration::from_millis(500);

/// Goes away when it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    clock: Option<JoinHandle<()>>,
}

impl Progress {
    /// Of something that is over after so long, from now on. Needs a tokio runtime.
    pub(crate) fn start(planned: Duration) -> Self {
        let whole = u64::try_from(planned.as_millis()).unwrap_or(u64::MAX).max(1);
        // Hidden by itself where standard error is no terminal.
        let bar = ProgressBar::with_draw_target(Some(whole), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {percent:>3} % {msg}")
        {
            bar.set_style(style.progress_chars("━╸─"));
        }
        let clock = (!bar.is_hidden()).then(|| tokio::spawn(advance(bar.clone(), planned)));
        Progress { bar, clock }
    }

    /// What stands behind the bar.
    pub(crate) fn say(&self, text: String) {
        self.bar.set_message(text);
    }

    /// A line of its own, on standard error.
    pub(crate) fn line(&self, line: impl Display) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line.to_string());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(clock) = &self.clock {
            clock.abort();
        }
        self.bar.finish_and_clear();
    }
}

async fn advance(bar: ProgressBar, planned: Duration) {
    let began = Instant::now();
    loop {
        let elapsed = began.elapsed();
        bar.set_prefix(format!("{} of {}", clock(elapsed), clock(planned)));
        bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        tokio::time::sleep(REDRAWN).await;
    }
}

/// Minutes and seconds.
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}
