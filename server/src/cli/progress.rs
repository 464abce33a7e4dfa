//! A bar on stderr for jobs that take longer than a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use foveal_index::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Jobs that end sooner show no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// The bar of one job: one stage at a time. Shown only on a terminal; gone when dropped.
pub(crate) struct Bars {
    started: Instant,
    stage: Mutex<Option<(&'static str, ProgressBar)>>,
}

impl Bars {
    /// The bar of a job that starts now.
    pub(crate) fn start() -> Bars {
        Bars { started: Instant::now(), stage: Mutex::new(None) }
    }

    /// Shows how far the job has come. Any thread may call it.
    pub(crate) fn show(&self, progress: Progress) {
        if self.started.elapsed() < PATIENCE {
            return;
        }
        // A thread that panicked while it drew leaves nothing worse than a wrong bar.
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if stage.as_ref().is_none_or(|(name, _)| *name != progress.stage) {
            if let Some((_, bar)) = stage.take() {
                bar.finish_and_clear();
            }
            *stage = Some((progress.stage, bar_of(progress)));
        }
        if let Some((_, bar)) = stage.as_ref() {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        }
    }

    /// Removes the bar, so that results may be printed.
    pub(crate) fn finish(&self) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bar)) = stage.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.finish();
    }
}

fn bar_of(progress: Progress) -> ProgressBar {
    // `stderr` draws nothing where stderr is no terminal.
    let bar = ProgressBar::with_draw_target(Some(progress.total), ProgressDrawTarget::stderr());
    let template = "  {msg:18} {wide_bar:.dim} {human_pos} / {human_len}  {eta} left ";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━━─"));
    }
    bar.set_message(progress.stage);
    // What was done before the bar was shown says nothing about how fast it goes on from here.
    bar.set_position(progress.done);
    bar.reset_eta();
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bars: &Bars) -> Option<(&'static str, u64, Option<u64>)> {
        let stage = bars.stage.lock().unwrap();
        stage.as_ref().map(|(name, bar)| (*name, bar.position(), bar.length()))
    }

    #[test]
    fn short_jobs_show_nothing_and_long_ones_their_stage() {
        let mut bars = Bars::start();
        bars.show(Progress { stage: "encode", done: 1, total: 10 });
        assert_eq!(shown(&bars), None);
        bars.started = Instant::now().checked_sub(PATIENCE).unwrap();
        bars.show(Progress { stage: "encode", done: 2, total: 10 });
        assert_eq!(shown(&bars), Some(("encode", 2, Some(10))));
        bars.show(Progress { stage: "grow graph", done: 0, total: 7 });
        assert_eq!(shown(&bars), Some(("grow graph", 0, Some(7))));
    }
}
