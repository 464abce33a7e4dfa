//! What recall costs: queries a second, reads, latency, memory.

use std::collections::BTreeSet;

use foveal_bench::line::{Dataset, Figures, Recall};

use super::axis::{Scale, shows};
use super::curve::{Better, Point, Series, Setup, Styles, names, pareto};
use super::group::{
    Chart, Group, LineGroup, day, described, holding, line_groups, styles_of, warnings,
};
use super::grouping::{Entry, Section, letter};
use super::plot::{Along, Head, Plot};
use super::table::{Cell, Table};
use super::words::{bytes, count, micros, number, recall as share, short, slug};

/// One drawing: a cost or a gain over recall.
struct Measure {
    slug: &'static str,
    title: &'static str,
    name: &'static str,
    better: Better,
    written: fn(f64) -> String,
    value: fn(&Dataset, &Recall) -> Option<f64>,
    /// Whether the spread of the passes is a spread of this value.
    spread: bool,
    /// Whether the value depends on threads, queries in flight and the way of reading.
    timed: bool,
}

const MEASURES: [Measure; 4] = [
    Measure {
        slug: "qps",
        title: "Queries a second",
        name: "queries a second",
        better: Better::Higher,
        written: short,
        value: |_, recall| Some(recall.qps),
        spread: true,
        timed: true,
    },
    Measure {
        slug: "reads",
        title: "Reads a query",
        name: "4 KiB blocks a query",
        better: Better::Lower,
        written: short,
        value: |_, recall| Some(recall.cost?.reads),
        spread: false,
        timed: false,
    },
    Measure {
        slug: "p99",
        title: "p99 latency",
        name: "p99 latency",
        better: Better::Lower,
        written: micros,
        value: |_, recall| Some(recall.latency_us?.p99),
        spread: false,
        timed: true,
    },
    Measure {
        slug: "qps-per-gb",
        title: "Queries a second per GB",
        name: "queries a second per GB of RAM",
        better: Better::Higher,
        written: short,
        value: qps_per_gb,
        spread: false,
        timed: true,
    },
];

/// Queries a second for each 10^9 bytes of memory, the cached part of the full store included.
/// A system that keeps everything in memory and names no full store has none.
pub fn qps_per_gb(data: &Dataset, recall: &Recall) -> Option<f64> {
    let cached = match (recall.full_store_cached_bytes_per_vector, &recall.io) {
        (Some(bytes), _) => bytes,
        (None, None) => 0.0,
        (None, Some(_)) => return None,
    };
    let gigabytes = (recall.resident_bytes_per_vector? + cached) * data.n? as f64 / 1e9;
    Some(recall.qps / gigabytes)
}

/// A group for each `k`.
pub fn groups(section: &Section, styles: &mut Styles) -> Vec<Group> {
    let all = holding(section, |figures| match figures {
        Figures::Recall(recall) => Some(&**recall),
        _ => None,
    });
    let ks: BTreeSet<u32> = all.iter().map(|(_, recall)| recall.k).collect();
    let mut groups = Vec::new();
    for k in ks {
        let of: Vec<_> = all.iter().copied().filter(|(_, recall)| recall.k == k).collect();
        let plots = MEASURES.iter().map(|measure| plot(section, &of, measure, styles));
        groups.push(Group {
            heading: format!("Recall@{k}"),
            hints: Vec::new(),
            warnings: warnings(of.iter().map(|(entry, _)| *entry)),
            charts: plots.filter(|plot| !plot.series.is_empty()).map(Chart::Plot).collect(),
            table: table(&section.data, &of),
        });
    }
    groups
}

fn plot(
    section: &Section,
    of: &[(&Entry, &Recall)],
    measure: &Measure,
    styles: &mut Styles,
) -> Plot {
    let k = of[0].1.k;
    let facets = |_: &Entry, recall: &Recall| {
        if measure.timed { how(recall) } else { Vec::new() }
    };
    let mut line_groups = line_groups(of, facets);
    if !measure.timed {
        join_machines(&mut line_groups);
    }
    let points: Vec<Vec<Point>> =
        line_groups.iter().map(|group| points(&section.data, &group.of, measure)).collect();
    let shown = || line_groups.iter().zip(&points).filter(|(_, points)| !points.is_empty());
    let setups: Vec<Setup> = shown().map(|(group, _)| group.setup.clone()).collect();
    let (labels, shared) = names(&setups);
    let styles = styles_of(setups.iter(), styles);
    let series = shown().zip(labels).zip(styles).map(|(((_, points), label), style)| Series {
        label,
        style,
        joined: pareto(points, measure.better),
        points: points.clone(),
    });
    let series = series.collect();
    let mut parts = described(&section.data);
    parts.extend(shared);
    Plot {
        head: Head {
            slug: format!("{}-k{k}-{}", slug(&section.data.name), measure.slug),
            title: format!("{} at recall@{k}", measure.title),
            parts,
        },
        x: Along {
            name: format!("recall@{k}"),
            scale: Scale::Nines,
            written: share,
            better: Some(Better::Higher),
        },
        y: Along {
            name: measure.name.into(),
            scale: Scale::Log,
            written: measure.written,
            better: Some(measure.better),
        },
        series,
    }
}

/// Joins what differs by machine only: counted costs are the same everywhere.
fn join_machines(line_groups: &mut Vec<LineGroup<'_, Recall>>) {
    let mut joined: Vec<LineGroup<'_, Recall>> = Vec::new();
    for mut group in line_groups.drain(..) {
        group.setup.machine = 0;
        match joined.iter_mut().find(|other| other.setup == group.setup) {
            Some(other) => other.of.append(&mut group.of),
            None => joined.push(group),
        }
    }
    *line_groups = joined;
}

/// How queries were sent and vectors read, in words; nothing where it is the plain way.
fn how(recall: &Recall) -> Vec<String> {
    let in_flight = match recall.in_flight {
        1 => String::new(),
        more => format!("{} in flight", number(f64::from(more))),
    };
    vec![count(u64::from(recall.threads), "thread"), in_flight, reading(recall)]
}

/// The way full vectors were read; nothing if all are in memory.
fn reading(recall: &Recall) -> String {
    let cold = if recall.cold { "cold" } else { "" };
    let parts = [cold, recall.io.as_deref().unwrap_or("")];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn points(data: &Dataset, of: &[(&Entry, &Recall)], measure: &Measure) -> Vec<Point> {
    let point = |(entry, recall): &(&Entry, &Recall)| {
        let y = (measure.value)(data, recall).filter(|y| shows(Scale::Log, *y))?;
        let sound = |spread: &[f64; 2]| spread.iter().all(|y| shows(Scale::Log, *y));
        Some(Point {
            x: Some(recall.recall).filter(|x| shows(Scale::Nines, *x))?,
            y,
            spread: recall.qps_spread.filter(|spread| measure.spread && sound(spread)),
            told: told(data, entry, recall),
        })
    };
    of.iter().filter_map(point).collect()
}

/// The description of a point, in lines.
fn told(data: &Dataset, entry: &Entry, recall: &Recall) -> String {
    let mut lines = vec![
        format!("{}, {}", entry.line.system, entry.line.params),
        how(recall).into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", "),
        format!("recall@{} {:.4}", recall.k, recall.recall),
        format!("{} queries a second", number(recall.qps)),
    ];
    if let Some([low, high]) = recall.qps_spread {
        lines.push(format!("passes from {} to {}", number(low), number(high)));
    }
    if let Some(latency) = &recall.latency_us {
        lines.push(format!("p50 {}, p99 {}", micros(latency.p50), micros(latency.p99)));
    }
    if let Some(cost) = &recall.cost {
        let (reads, distances) = (number(cost.reads), number(cost.distances));
        lines.push(format!("{reads} reads, {distances} distances"));
    }
    if let Some(value) = qps_per_gb(data, recall) {
        lines.push(format!("{} queries a second per GB", number(value)));
    }
    lines.join("\n")
}

fn table(data: &Dataset, of: &[(&Entry, &Recall)]) -> Table {
    let columns = [
        "system",
        "parameters",
        "threads",
        "in flight",
        "reading",
        "recall",
        "QPS",
        "slowest",
        "fastest",
        "p50",
        "p99",
        "distances",
        "hops",
        "reads",
        "device reads",
        "RAM a vector",
        "cached a vector",
        "QPS per GB",
        "machine",
        "day",
    ];
    let four = |value: f64| format!("{value:.4}");
    let row = |(entry, recall): &(&Entry, &Recall)| {
        let (latency, cost) = (recall.latency_us.as_ref(), recall.cost.as_ref());
        let [slowest, fastest] = recall.qps_spread.map_or([None; 2], |spread| spread.map(Some));
        vec![
            Cell::text(&entry.line.system),
            Cell::text(&entry.line.params),
            Cell::figure(Some(f64::from(recall.threads)), number),
            Cell::figure(Some(f64::from(recall.in_flight)), number),
            Cell::text(reading(recall)),
            Cell::figure(Some(recall.recall), four),
            Cell::figure(Some(recall.qps), number),
            Cell::figure(slowest, number),
            Cell::figure(fastest, number),
            Cell::figure(latency.map(|latency| latency.p50), micros),
            Cell::figure(latency.map(|latency| latency.p99), micros),
            Cell::figure(cost.map(|cost| cost.distances), number),
            Cell::figure(cost.map(|cost| cost.hops), number),
            Cell::figure(cost.map(|cost| cost.reads), number),
            Cell::figure(cost.map(|cost| cost.device_reads), number),
            Cell::figure(recall.resident_bytes_per_vector, bytes),
            Cell::figure(recall.full_store_cached_bytes_per_vector, bytes),
            Cell::figure(qps_per_gb(data, recall), number),
            Cell::text(letter(entry.machine)),
            Cell::text(day(entry)),
        ]
    };
    Table { columns: columns.map(String::from).into(), rows: of.iter().map(row).collect() }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn memory_of_a_point_counts_what_is_cached() {
        let (data, mut recall) = (sample::dataset("d"), sample::recall(0.9, 1_000.0));
        // (100 + 28) bytes a vector times a million vectors are 0.128 GB.
        recall.resident_bytes_per_vector = Some(100.0);
        recall.full_store_cached_bytes_per_vector = Some(28.0);
        assert!((qps_per_gb(&data, &recall).unwrap() - 7_812.5).abs() < 1e-9);
        recall.full_store_cached_bytes_per_vector = None;
        assert_eq!(qps_per_gb(&data, &recall), None);
        recall.io = None;
        assert!((qps_per_gb(&data, &recall).unwrap() - 10_000.0).abs() < 1e-9);
        assert_eq!(qps_per_gb(&Dataset { n: None, ..data }, &recall), None);
    }

    #[test]
    fn ways_of_asking_are_told() {
        let mut recall = sample::recall(0.9, 1.0);
        (recall.cold, recall.threads) = (true, 2);
        assert_eq!(how(&recall), ["2 threads", "", "cold uring"]);
    }
}
