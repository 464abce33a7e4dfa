//! A bar on stderr, shown on a terminal only.

use foveal_index::{Job, Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// The bar of a long job: tells the stage and how far it has come.
pub struct Bars {
    show: Box<dyn Fn(Progress) + Sync>,
    bar: ProgressBar,
}

impl Bars {
    /// A bar of a job that starts now.
    pub fn start() -> Bars {
        let bar = ProgressBar::new(0);
        let template = "  {msg:18} {wide_bar:.dim} {human_pos} / {human_len}  {eta} left ";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━━─"));
        }
        let shown = bar.clone();
        let show = Box::new(move |progress: Progress| {
            shown.set_message(progress.stage);
            shown.set_length(progress.total);
            shown.set_position(progress.done);
        });
        Bars { show, bar }
    }

    /// What an engine's job tells its progress to.
    pub fn job(&self) -> Job<'_> {
        Job { progress: Some(&*self.show), interrupt: None }
    }

    /// Shows that `done` of `total` units of `stage` are done.
    pub fn tell(&self, stage: &'static str, done: u64, total: u64) {
        (self.show)(Progress { stage, done, total });
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
