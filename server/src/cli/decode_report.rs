//! What a decode measured, as a JSON object for scripts and a table for people.

use foveal_index::{Decoded, OpenError};
use foveal_measure::{DecodePlan, Latency, Measurement, median};
use serde::Serialize;

use super::table::{Table, counted, grouped, micros, seconds, three_digits};
use super::terminal::Terminal;

/// What `decode --format json` prints: a contract, fields in this order.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DecodeReport {
    n: u64,
    dim: u32,
    bits: u8,
    queries: usize,
    k: u32,
    /// How candidates were found.
    mode: &'static str,
    target_recall: f64,
    rerank_size: Option<u32>,
    temperature: f64,
    top_p: f64,
    threads: usize,
    io: String,
    passes: usize,
    seconds: f64,
    /// Only where there is a ground truth.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) precision: Option<Precision>,
    qps: f64,
    latency_us: Latency,
    pub(crate) log_z: LogZReport,
    /// Only where the tokens that came next are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    perplexity: Option<f64>,
    /// The share of the decodes whose order is proved.
    order_proved: f64,
    distances_per_query: f64,
    hops_per_query: f64,
    reranked_per_query: f64,
    reads_per_query: f64,
    /// Full vectors left out, wherever they are.
    resident_bytes_per_vector: f64,
    /// Full vectors in memory or in the page cache.
    full_store_cached_bytes_per_vector: f64,
}

/// The shares of the true best tokens that were found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Precision {
    #[serde(rename = "p_at_1")]
    pub(crate) at_1: f64,
    #[serde(rename = "p_at_10", skip_serializing_if = "Option::is_none")]
    pub(crate) at_10: Option<f64>,
    #[serde(rename = "p_at_k")]
    pub(crate) at_k: f64,
}

/// How sure log Z is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct LogZReport {
    mode: &'static str,
    /// The width of half of the intervals is no more, in nats.
    width_p50: Option<f64>,
    /// The share of the intervals, among the first thousand, that hold the truth.
    pub(crate) covered: Option<f64>,
    /// The share of the decodes that took more than planned to be as sure as wanted.
    widened: f64,
}

impl DecodeReport {
    /// `anonymous_before` is the anonymous memory of the process before the index was opened.
    ///
    /// # Errors
    /// The system does not tell what the page cache holds of the full store.
    pub(crate) fn of(
        plan: &DecodePlan<'_>,
        measured: &Measurement<Decoded>,
        anonymous_before: u64,
    ) -> Result<DecodeReport, OpenError> {
        let (index, totals, params) = (plan.index, &measured.totals, &plan.params);
        let per_query = |sum: u64| sum as f64 / totals.queries.max(1) as f64;
        let resident = measured.resident_bytes(index, anonymous_before);
        let a_vector = |bytes: u64| bytes as f64 / index.len() as f64;
        let widths = measured.found.iter().filter_map(|decoded| decoded.log_z);
        let mut widths: Vec<f64> = widths.map(|log_z| log_z.high - log_z.low).collect();
        let next = measured.found.iter().filter_map(|decoded| decoded.requested.first());
        let next: Vec<f64> = next.map(|token| token.log_prob).collect();
        let widened = measured.found.iter().filter(|decoded| decoded.widened).count();
        let perplexity = || (-next.iter().sum::<f64>() / next.len() as f64).exp();
        Ok(DecodeReport {
            n: index.len(),
            dim: index.manifest().dim,
            bits: index.manifest().bits,
            queries: plan.hidden.len(),
            k: params.k,
            mode: measured.found.first().map_or("auto", |decoded| decoded.mode.name()),
            target_recall: params.precision,
            rerank_size: params.rerank_size,
            temperature: params.temperature,
            top_p: params.top_p,
            threads: plan.threads,
            io: index.io().to_string(),
            passes: measured.passes,
            seconds: measured.seconds,
            precision: None,
            qps: measured.qps,
            latency_us: measured.latency,
            log_z: LogZReport {
                mode: params.log_z.name(),
                width_p50: (!widths.is_empty()).then(|| median(&mut widths)),
                covered: None,
                widened: widened as f64 / measured.found.len().max(1) as f64,
            },
            perplexity: (!next.is_empty()).then(perplexity),
            order_proved: per_query(totals.certified),
            distances_per_query: per_query(totals.stats.distances),
            hops_per_query: per_query(totals.stats.hops),
            reranked_per_query: per_query(totals.stats.reranked),
            reads_per_query: per_query(totals.stats.reads),
            resident_bytes_per_vector: a_vector(resident),
            full_store_cached_bytes_per_vector: a_vector(index.full_store_cached_bytes()?),
        })
    }

    /// The table for people.
    pub(crate) fn table(&self, terminal: &Terminal) -> String {
        let mut table = Table::default();
        table.line("head", format!("{} tokens x {}", grouped(self.n), self.dim));
        let states = counted(self.queries as u64, "hidden state", "hidden states");
        let (k, temperature) = (self.k, self.temperature);
        table.line("asked", format!("{states}, k {k}, temperature {temperature}"));
        let threads = counted(self.threads as u64, "thread", "threads");
        table.line("with", format!("{threads}, mode {}, {}", self.mode, self.io));
        table.gap();
        if let Some(Precision { at_1, at_10, at_k }) = self.precision {
            let at_10 = at_10.filter(|_| k != 10).map(|p| format!(", P@10 {p:.4}"));
            let at_10 = at_10.unwrap_or_default();
            table.line("right tokens", format!("P@1 {at_1:.4}{at_10}, P@{k} {at_k:.4}"));
        }
        let (passes, taken) = (self.passes, seconds(self.seconds));
        let rate = three_digits(self.qps);
        table.line("states a second", format!("{rate}, the median of {passes} passes in {taken}"));
        let Latency { mean, p50, p95, p99 } = self.latency_us;
        let [mean, p50, p95, p99] = [mean, p50, p95, p99].map(micros);
        table.line("latency", format!("mean {mean}, p50 {p50}, p95 {p95}, p99 {p99}"));
        if let Some(width) = self.log_z.width_p50 {
            let covered = self.log_z.covered.map(|share| 100.0 * share);
            let covered = covered.map(|share| format!(", {share:.1} % hold the truth"));
            let covered = covered.unwrap_or_default();
            table.line("log Z", format!("median width {width:.4} nats{covered}"));
        }
        if let Some(perplexity) = self.perplexity {
            table.line("perplexity", format!("{perplexity:.3}"));
        }
        table.gap();
        let (estimated, ranked) = (self.distances_per_query, self.reranked_per_query);
        let (estimated, ranked) = (three_digits(estimated), three_digits(ranked));
        table.line("logits", format!("{estimated} estimated, {ranked} exact a state"));
        if self.log_z.widened > 0.0 {
            let share = 100.0 * self.log_z.widened;
            table.line(
                "widened",
                format!("{share:.1} %: more work than planned, estimates are poor"),
            );
        }
        let resident = three_digits(self.resident_bytes_per_vector);
        table.line("resident", format!("{resident} B a token"));
        let cached = three_digits(self.full_store_cached_bytes_per_vector);
        table.line("full store cached", format!("{cached} B a token"));
        format!("{}\n{}", terminal.bold("Decode"), table.render(terminal))
    }
}
