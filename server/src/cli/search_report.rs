//! What a search measured, as a JSON object for scripts and a table for people.

use foveal_datasets::Metric;
use foveal_index::OpenError;
use foveal_measure::{Latency, Measurement, Plan};
use serde::Serialize;

use super::table::{Table, bytes, counted, grouped, micros, seconds, three_digits};
use super::terminal::Terminal;

/// What `search --format json` prints: a contract, fields in this order.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SearchReport {
    n: u64,
    dim: u32,
    metric: Metric,
    bits: u8,
    queries: usize,
    k: u32,
    list_size: u32,
    rerank_size: u32,
    pub(crate) target_recall: Option<f64>,
    pub(crate) expected_recall: Option<f64>,
    threads: usize,
    in_flight: usize,
    io: String,
    cold: bool,
    passes: usize,
    seconds: f64,
    /// Only where there is a ground truth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recall: Option<f64>,
    qps: f64,
    latency_us: Latency,
    distances_per_query: f64,
    hops_per_query: f64,
    reads_per_query: f64,
    device_reads_per_query: f64,
    read_bytes_per_query: f64,
    /// Share of the returned neighbors proven to precede every other candidate of their walk.
    certified: f64,
    /// Share of the answers cut short by `--max-reads`.
    partial: f64,
    /// Full vectors left out, wherever they are.
    resident_bytes_per_vector: f64,
    /// Full vectors in memory or in the page cache.
    full_store_cached_bytes_per_vector: f64,
}

impl SearchReport {
    /// `anonymous_before` is the anonymous memory of the process before the index was opened.
    ///
    /// # Errors
    /// The system does not tell what the page cache holds of the full store.
    pub(crate) fn of(
        plan: &Plan<'_>,
        measured: &Measurement,
        cold: bool,
        anonymous_before: u64,
    ) -> Result<SearchReport, OpenError> {
        let (index, totals) = (plan.index, &measured.totals);
        let per_query = |sum: u64| share(sum, totals.queries);
        let resident = measured.resident_bytes(index, anonymous_before);
        let cached = index.full_store_cached_bytes()?;
        Ok(SearchReport {
            n: index.len(),
            dim: index.manifest().dim,
            metric: index.manifest().metric,
            bits: index.manifest().bits,
            queries: plan.queries.len(),
            k: plan.params.k,
            list_size: plan.params.list_size,
            rerank_size: plan.params.rerank_size,
            target_recall: None,
            expected_recall: None,
            threads: plan.threads,
            in_flight: plan.in_flight,
            io: index.io().to_string(),
            cold,
            passes: measured.passes,
            seconds: measured.seconds,
            recall: None,
            qps: measured.qps,
            latency_us: measured.latency,
            distances_per_query: per_query(totals.stats.distances),
            hops_per_query: per_query(totals.stats.hops),
            reads_per_query: per_query(totals.stats.reads),
            device_reads_per_query: per_query(totals.stats.device_reads),
            read_bytes_per_query: per_query(totals.stats.read_bytes),
            certified: share(totals.certified, totals.results),
            partial: per_query(totals.partial),
            resident_bytes_per_vector: share(resident, index.len()),
            full_store_cached_bytes_per_vector: share(cached, index.len()),
        })
    }

    /// The table for people.
    pub(crate) fn table(&self, terminal: &Terminal) -> String {
        let mut table = Table::default();
        let (n, dim, metric) = (grouped(self.n), self.dim, self.metric);
        table.line("index", format!("{n} x {dim}, {metric}, {} bits a dimension", self.bits));
        let queries = counted(self.queries as u64, "query", "queries");
        let (k, list, rerank) = (self.k, self.list_size, self.rerank_size);
        table.line("asked", format!("{queries}, k {k}, list size {list}, rerank size {rerank}"));
        let threads = counted(self.threads as u64, "thread", "threads");
        let temperature = if self.cold { "cold" } else { "warm" };
        let (flight, io) = (self.in_flight, &self.io);
        table.line("with", format!("{threads}, {flight} in flight each, {io}, {temperature}"));
        table.gap();
        if let Some(recall) = self.recall {
            table.line(&format!("recall@{k}"), format!("{recall:.4}"));
        }
        if let (Some(target), Some(expected)) = (self.target_recall, self.expected_recall) {
            table.line("target recall", format!("{target}, expected {expected:.4}"));
        }
        let (passes, taken) = (self.passes, seconds(self.seconds));
        let rate = three_digits(self.qps);
        table.line("queries a second", format!("{rate}, the median of {passes} passes in {taken}"));
        let Latency { mean, p50, p95, p99 } = self.latency_us;
        let [mean, p50, p95, p99] = [mean, p50, p95, p99].map(micros);
        table.line("latency", format!("mean {mean}, p50 {p50}, p95 {p95}, p99 {p99}"));
        table.gap();
        self.costs(&mut table);
        format!("{}\n{}", terminal.bold("Search"), table.render(terminal))
    }

    fn costs(&self, table: &mut Table) {
        let (distances, hops) = (self.distances_per_query, self.hops_per_query);
        let (distances, hops) = (three_digits(distances), three_digits(hops));
        table.line("preview", format!("{distances} distances and {hops} hops a query"));
        let (reads, device) = (self.reads_per_query, self.device_reads_per_query);
        let (reads, device) = (three_digits(reads), three_digits(device));
        let read = bytes(self.read_bytes_per_query.round() as u64);
        table.line("fullview", format!("{reads} reads a query, {device} of them device ({read})"));
        if self.certified > 0.0 {
            let certified = 100.0 * self.certified;
            table.line("certified", format!("{certified:.1} % of the neighbors, among candidates"));
        }
        if self.partial > 0.0 {
            let partial = 100.0 * self.partial;
            table.line("partial", format!("{partial:.1} % of the answers, cut by --max-reads"));
        }
        let resident = three_digits(self.resident_bytes_per_vector);
        table.line("resident", format!("{resident} B a vector"));
        let cached = three_digits(self.full_store_cached_bytes_per_vector);
        table.line("full store cached", format!("{cached} B a vector"));
    }
}

fn share(sum: u64, of: u64) -> f64 {
    sum as f64 / of.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> SearchReport {
        SearchReport {
            n: 1000,
            dim: 8,
            metric: Metric::L2,
            bits: 4,
            queries: 10,
            k: 10,
            list_size: 64,
            rerank_size: 64,
            target_recall: None,
            expected_recall: None,
            threads: 2,
            in_flight: 1,
            io: "pread".into(),
            cold: false,
            passes: 3,
            seconds: 1.5,
            recall: None,
            qps: 20.0,
            latency_us: Latency { mean: 1.0, p50: 2.0, p95: 3.0, p99: 4.0 },
            distances_per_query: 5.0,
            hops_per_query: 6.0,
            reads_per_query: 7.0,
            device_reads_per_query: 8.0,
            read_bytes_per_query: 9.0,
            certified: 0.5,
            partial: 0.25,
            resident_bytes_per_vector: 100.5,
            full_store_cached_bytes_per_vector: 0.0,
        }
    }

    #[test]
    fn json_has_the_documented_fields_in_order() {
        let text = serde_json::to_string(&report()).unwrap();
        let wanted = concat!(
            r#"{"n":1000,"dim":8,"metric":"l2","bits":4,"queries":10,"k":10,"list_size":64,"#,
            r#""rerank_size":64,"target_recall":null,"expected_recall":null,"threads":2,"#,
            r#""in_flight":1,"io":"pread","cold":false,"passes":3,"seconds":1.5,"qps":20.0,"#,
            r#""latency_us":{"mean":1.0,"p50":2.0,"p95":3.0,"p99":4.0},"#,
            r#""distances_per_query":5.0,"hops_per_query":6.0,"reads_per_query":7.0,"#,
            r#""device_reads_per_query":8.0,"read_bytes_per_query":9.0,"certified":0.5,"#,
            r#""partial":0.25,"resident_bytes_per_vector":100.5,"#,
            r#""full_store_cached_bytes_per_vector":0.0}"#
        );
        assert_eq!(text, wanted);
    }

    #[test]
    fn recall_stands_between_seconds_and_qps_only_with_a_truth() {
        let with = SearchReport { recall: Some(0.9), ..report() };
        let text = serde_json::to_string(&with).unwrap();
        assert!(text.contains(r#""seconds":1.5,"recall":0.9,"qps":20.0"#), "{text}");
        assert!(with.table(&Terminal::plain()).contains("recall@10          0.9000"));
        assert!(!report().table(&Terminal::plain()).contains("recall"));
    }

    #[test]
    fn the_table_fits_80_columns() {
        let text = SearchReport { recall: Some(0.95), n: 1_000_000_000, ..report() };
        let text = text.table(&Terminal::plain());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
