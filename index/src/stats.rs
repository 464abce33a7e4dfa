//! What a query and a long job did.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What a query cost, or several in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryStats {
    /// Preview distances computed, entry points included.
    pub distances: u64,
    /// Nodes expanded.
    pub hops: u64,
    /// Codes of allowed rows met by a scan of them all; they are among the distances.
    pub scanned: u64,
    /// Candidates ranked exactly.
    pub reranked: u64,
    /// Distinct 4 KiB blocks that fullview read, wherever they were served from.
    pub reads: u64,
    /// Of those, the ones read from the operating system.
    pub device_reads: u64,
    /// Bytes read from the operating system.
    pub read_bytes: u64,
    /// Nanoseconds in preview, preparation of the query included.
    pub preview_nanos: u64,
    /// Nanoseconds from the end of preview to the answer; those of other queries of a batch that
    /// take turns with it, and of waiting for rows, are among them.
    pub fullview_nanos: u64,
    /// Distinct 4 KiB blocks read for each payload of the answer, summed.
    pub payload_reads: u64,
    /// Nanoseconds spent on payloads of the answer.
    pub payload_nanos: u64,
}

impl AddAssign for QueryStats {
    fn add_assign(&mut self, other: QueryStats) {
        self.distances += other.distances;
        self.hops += other.hops;
        self.scanned += other.scanned;
        self.reranked += other.reranked;
        self.reads += other.reads;
        self.device_reads += other.device_reads;
        self.read_bytes += other.read_bytes;
        self.preview_nanos += other.preview_nanos;
        self.fullview_nanos += other.fullview_nanos;
        self.payload_reads += other.payload_reads;
        self.payload_nanos += other.payload_nanos;
    }
}

/// How far a long job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, in a word or two.
    pub stage: &'static str,
    /// Units done in this stage.
    pub done: u64,
    /// Units of this stage in all.
    pub total: u64,
}

/// What ties a long job to its caller: a progress callback, and an interrupt.
#[derive(Clone, Copy, Default)]
pub struct Job<'a> {
    /// Told now and then, from any thread.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    /// Set to true by the caller to end the job; looked at many times a second.
    pub interrupt: Option<&'a AtomicBool>,
}

impl Job<'_> {
    /// Tells the caller.
    pub fn tell(&self, stage: &'static str, done: u64, total: u64) {
        if let Some(progress) = self.progress {
            progress(Progress { stage, done, total });
        }
    }

    /// Whether the caller wants the job to end.
    pub fn interrupted(&self) -> bool {
        self.interrupt.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

/// When a query must end early. The default never does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stop<'a> {
    /// The moment after which an answer is of no use.
    pub deadline: Option<Instant>,
    /// Set to true when the caller cancels.
    pub cancelled: Option<&'a AtomicBool>,
}

/// Why a query ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The deadline passed.
    Deadline,
    /// The caller went away.
    Cancelled,
}

impl Stop<'_> {
    /// Whether it can never come.
    pub fn is_never(&self) -> bool {
        self.deadline.is_none() && self.cancelled.is_none()
    }

    /// Whether the query must end now, and why. Costs a clock reading when there is a deadline.
    pub fn now(&self) -> Option<Stopped> {
        if self.cancelled.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Some(Stopped::Cancelled);
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Some(Stopped::Deadline);
        }
        None
    }
}
