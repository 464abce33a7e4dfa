//! What became of the calls: latencies, failures, answers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tonic::Code;

use super::connection::{Answer, code_name};
use super::requests::Requests;
use crate::line::Latency;

/// Parts of the measured time that have medians of their own.
pub const PARTS: usize = 10;

/// Calls without an answer when the drain was over, among the failures.
pub const UNANSWERED: &str = "UNANSWERED";

/// Longer than any run: the end of the histograms.
pub const DAY: Duration = Duration::from_secs(86_400);

/// The time that is measured: calls meant to start in it are counted.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Its first moment; what comes before is warm-up.
    pub from: Instant,
    /// Its length.
    pub length: Duration,
}

impl Window {
    /// Which tenth a moment belongs to; `None` outside.
    fn part(&self, moment: Instant) -> Option<usize> {
        let share = moment.checked_duration_since(self.from)?.div_duration_f64(self.length);
        (share < 1.0).then_some(((share * PARTS as f64) as usize).min(PARTS - 1))
    }
}

/// A call and its times.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// Its number, which names its queries.
    pub number: u64,
    /// When it was meant to start: latency counts from here.
    pub intended: Instant,
    /// When it did leave this client.
    pub left: Instant,
    /// When its answer was complete, or nobody waited any longer.
    pub done: Instant,
}

/// How a call ended.
pub enum End {
    /// With an answer.
    Answered(Answer),
    /// With an error.
    Failed(Code),
    /// Not at all.
    Unanswered,
}

/// Counts calls as they end.
///
/// Latencies are those of the answered calls and, as a lower bound, the time for which calls waited
/// that were given up, by this client or for their deadline. Calls refused at once are failures
/// and have no latency: a server is not quick for saying no.
pub struct Tally {
    window: Window,
    latency: Histogram<u64>,
    late: Histogram<u64>,
    parts: Vec<Histogram<u64>>,
    calls: u64,
    completed: u64,
    failed: BTreeMap<String, u64>,
    answers: Vec<Option<Vec<(u64, f32)>>>,
}

impl Tally {
    /// Nothing has ended yet; `queries` is how many different ones are sent.
    ///
    /// # Errors
    /// None that could occur: the range of the histograms is fixed.
    pub fn new(window: Window, queries: usize) -> anyhow::Result<Tally> {
        let histogram = Histogram::new_with_bounds(1, DAY.as_nanos() as u64, 3)?;
        Ok(Tally {
            window,
            parts: vec![histogram.clone(); PARTS],
            late: histogram.clone(),
            latency: histogram,
            calls: 0,
            completed: 0,
            failed: BTreeMap::new(),
            answers: vec![None; queries],
        })
    }

    /// Counts one call.
    pub fn record(&mut self, call: Timed, end: End, requests: &Requests) {
        if matches!(end, End::Answered(_)) && self.window.part(call.done).is_some() {
            self.completed += 1;
        }
        let Some(part) = self.window.part(call.intended) else { return };
        let waited = nanos(call.done - call.intended);
        let failure = match end {
            End::Answered(answer) => {
                self.calls += 1;
                self.keep(call.number, answer, requests);
                None
            }
            End::Failed(code) => Some(code_name(code)),
            End::Unanswered => Some(UNANSWERED.into()),
        };
        let timeless =
            |name: &String| name != UNANSWERED && *name != code_name(Code::DeadlineExceeded);
        let is_refused = failure.as_ref().is_some_and(timeless);
        if let Some(name) = failure {
            *self.failed.entry(name).or_default() += 1;
        }
        self.late.saturating_record(nanos(call.left - call.intended));
        if !is_refused {
            self.latency.saturating_record(waited);
            self.parts[part].saturating_record(waited);
        }
    }

    /// Keeps the first answer to each query, for recall.
    pub fn keep(&mut self, number: u64, answer: Answer, requests: &Requests) {
        if requests.queries_of(number).all(|query| self.answers[query].is_some()) {
            return;
        }
        for (query, list) in requests.queries_of(number).zip(answer.lists()) {
            self.answers[query].get_or_insert(list);
        }
    }

    /// The first answer to each query: keys and distances; `None` where there is none.
    pub fn answers(&self) -> &[Option<Vec<(u64, f32)>>] {
        &self.answers
    }

    /// Calls meant to start in the measured time that were answered, sooner or later.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Calls meant to start in it that failed, by code.
    pub fn failed(&self) -> &BTreeMap<String, u64> {
        &self.failed
    }

    /// Calls whose answers arrived in it, a second: what the server did.
    pub fn answered_per_second(&self) -> f64 {
        self.completed as f64 / self.window.length.as_secs_f64()
    }

    /// Latencies of calls meant to start in it, from that moment.
    pub fn latency(&self) -> Latency {
        summary(&self.latency)
    }

    /// The worst of them, in microseconds.
    pub fn max_us(&self) -> f64 {
        micros(self.latency.max())
    }

    /// For how long calls waited before they left this client.
    pub fn late(&self) -> Latency {
        summary(&self.late)
    }

    /// The median latency of each tenth, in microseconds. A tenth without a call that has one, be
    /// it that none was meant to start or that all were refused, has that of the tenth before it.
    pub fn p50_over_time_us(&self) -> Vec<f64> {
        let full = |part: &&Histogram<u64>| !part.is_empty();
        let median = |part: &Histogram<u64>| micros(part.value_at_quantile(0.5));
        let mut last = self.parts.iter().find(full).map_or(0.0, median);
        let mut medians = Vec::with_capacity(PARTS);
        for part in &self.parts {
            last = if part.is_empty() { last } else { median(part) };
            medians.push(last);
        }
        medians
    }
}

fn summary(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| micros(histogram.value_at_quantile(quantile));
    Latency { mean: histogram.mean() / 1_000.0, p50: at(0.5), p95: at(0.95), p99: at(0.99) }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use foveal_datasets::{Rows, Values};
    use foveal_proto::v1 as pb;

    use super::super::requests::RequestParams;
    use super::*;
    use crate::line::Call;

    const SECOND: Duration = Duration::from_secs(1);

    struct Run {
        begun: Instant,
        tally: Tally,
        requests: Requests,
    }

    /// Two queries; 10 seconds are measured after one of warm-up.
    fn run() -> Run {
        let begun = Instant::now();
        let window = Window { from: begun + SECOND, length: 10 * SECOND };
        let rows = Rows::new(1, Values::U8(vec![1, 2])).unwrap();
        let (call, collection) = (Call::Search, "c".into());
        let params = RequestParams { call, collection, k: 1, list_size: None, batch: 1 };
        let requests = Requests::new(&rows, &params).unwrap();
        Run { begun, tally: Tally::new(window, 2).unwrap(), requests }
    }

    impl Run {
        fn end(&mut self, number: u64, intended: f64, waited: f64, end: End) {
            let intended = self.begun + Duration::from_secs_f64(intended);
            let done = intended + Duration::from_secs_f64(waited);
            let left = intended + Duration::from_secs_f64(waited / 2.0);
            self.tally.record(Timed { number, intended, left, done }, end, &self.requests);
        }
    }

    fn answer(key: u64) -> End {
        let hits = vec![pb::Hit { key, distance: 0.5, ..pb::Hit::default() }];
        End::Answered(Answer::Search(pb::SearchResponse { hits, ..Default::default() }))
    }

    #[track_caller]
    fn is_near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() <= 2e-3 * wanted, "{found}; wanted {wanted}");
    }

    #[test]
    fn latency_counts_from_the_intended_start_and_by_tenth() {
        let mut run = run();
        for second in 1..=10 {
            run.end(0, f64::from(second) + 0.5, f64::from(second), answer(7));
        }
        let Run { tally, .. } = run;
        assert_eq!(tally.calls(), 10);
        is_near(tally.max_us(), 10e6);
        is_near(tally.latency().mean, 5.5e6);
        is_near(tally.late().mean, 2.75e6);
        for (part, second) in tally.p50_over_time_us().into_iter().zip(1..) {
            is_near(part, 1e6 * f64::from(second));
        }
        // Of starts at 1.5, 2.5, ... the first five have ended by 11.
        is_near(tally.answered_per_second(), 0.5);
    }

    #[test]
    fn warm_up_and_what_is_meant_for_later_do_not_count() {
        let mut run = run();
        run.end(0, 0.999, 0.5, answer(7));
        run.end(0, 11.0, 0.5, answer(7));
        run.end(1, 0.5, 0.1, End::Failed(Code::Internal));
        run.end(1, 0.5, 99.0, End::Unanswered);
        assert_eq!((run.tally.calls(), run.tally.failed().len()), (0, 0));
        assert_eq!(run.tally.max_us(), 0.0);
        assert_eq!(run.tally.p50_over_time_us(), [0.0; PARTS]);
        // An answer that arrived in the measured time is work that was done in it.
        is_near(run.tally.answered_per_second(), 0.1);
    }

    #[test]
    fn refusals_have_no_latency_and_patience_that_ended_is_a_lower_bound() {
        let mut run = run();
        run.end(0, 2.0, 0.000_001, End::Failed(Code::ResourceExhausted));
        run.end(0, 2.0, 0.000_001, End::Failed(Code::ResourceExhausted));
        run.end(0, 2.0, 1.0, answer(7));
        assert_eq!(run.tally.latency().p50, run.tally.max_us());
        run.end(1, 3.0, 20.0, End::Unanswered);
        run.end(1, 3.0, 20.0, End::Failed(Code::DeadlineExceeded));
        is_near(run.tally.latency().p50, 20e6);
        let failed = [("DEADLINE_EXCEEDED", 1), ("RESOURCE_EXHAUSTED", 2), (UNANSWERED, 1)];
        assert_eq!(*run.tally.failed(), failed.map(|(name, n)| (name.into(), n)).into());
        assert_eq!(run.tally.calls(), 1);
    }

    #[test]
    fn empty_tenths_have_the_median_of_the_one_before() {
        let mut run = run();
        run.end(0, 3.5, 1.0, answer(7));
        run.end(0, 8.5, 2.0, answer(7));
        let medians = run.tally.p50_over_time_us();
        medians[..7].iter().for_each(|median| is_near(*median, 1e6));
        medians[7..].iter().for_each(|median| is_near(*median, 2e6));
    }

    #[test]
    fn the_first_answer_to_each_query_is_kept() {
        let mut run = run();
        for (number, key) in [(1, 11), (1, 12), (3, 13)] {
            run.end(number, 2.0, 0.1, answer(key));
        }
        assert_eq!(*run.tally.answers(), [None, Some(vec![(11, 0.5)])]);
        run.end(2, 2.0, 0.1, answer(10));
        assert_eq!(run.tally.answers()[0], Some(vec![(10, 0.5)]));
    }
}
