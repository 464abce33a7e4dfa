//! Lines made up for tests.

use foveal_bench::line::{
    Build, Call, Cost, Dataset, Figures, Latency, Line, Load, Origin, Recall,
};
use foveal_datasets::Metric;

/// A million vectors.
pub fn dataset(name: &str) -> Dataset {
    Dataset {
        name: name.into(),
        n: Some(1_000_000),
        dim: Some(128),
        metric: Some(Metric::L2),
        digest: None,
    }
}

fn latency(p99: f64) -> Latency {
    Latency { mean: p99 / 3.0, p50: p99 / 4.0, p95: p99 / 2.0, p99 }
}

/// A point of a curve.
pub fn recall(recall: f64, qps: f64) -> Recall {
    Recall {
        k: 10,
        queries: 1_000,
        threads: 1,
        in_flight: 1,
        io: Some("uring".into()),
        cold: false,
        recall,
        recall_at: None,
        recall_ann_benchmarks: None,
        qps,
        qps_spread: Some([qps * 0.9, qps * 1.1]),
        passes: Some(3),
        latency_us: Some(latency(3e6 / qps)),
        cost: Some(Cost {
            distances: 1_000.0,
            hops: 30.0,
            reads: 2e5 / qps,
            device_reads: 0.0,
            read_bytes: 0.0,
        }),
        resident_bytes_per_vector: Some(100.0),
        full_store_cached_bytes_per_vector: Some(28.0),
    }
}

/// A line about `data` of `system`.
pub fn line(system: &str, data: &str, figures: Figures) -> Line {
    Line {
        system: system.into(),
        dataset: dataset(data),
        params: "L=48".into(),
        figures,
        origin: Origin {
            machine: None,
            version: "abc".into(),
            date: "2026-11-21T13:02:00Z".into(),
            command: "foveal-bench recall".into(),
        },
    }
}

/// A line of a curve.
pub fn point(system: &str, data: &str, share: f64, qps: f64) -> Line {
    line(system, data, Figures::Recall(Box::new(recall(share, qps))))
}

/// A line of a build.
pub fn build(system: &str, data: &str) -> Line {
    let figures = Build {
        threads: 2,
        build_seconds: 113.8,
        peak_rss_bytes: Some(445_718_528),
        resident_bytes_per_vector: Some(196.0),
        disk_bytes: None,
        digest: None,
    };
    line(system, data, Figures::Build(figures))
}

/// A line of an open loop.
pub fn load(system: &str, data: &str, rate: f64, p99: f64) -> Line {
    let figures = Load {
        k: 10,
        call: Call::Search,
        batch: 1,
        connections: 4,
        in_flight: 64,
        intended_calls_per_second: Some(rate),
        seconds: 10.0,
        calls: (rate * 10.0) as u64,
        failed: [("RESOURCE_EXHAUSTED".to_owned(), 3)].into(),
        backlog: None,
        qps: rate,
        recall: None,
        latency_us: latency(p99),
        max_us: p99 * 2.0,
        p50_over_time_us: (1..=10).map(|i| p99 / 4.0 + f64::from(i)).collect(),
    };
    line(system, data, Figures::Load(Box::new(figures)))
}
