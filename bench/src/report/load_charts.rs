//! How a server answers under load: latency over rate, and over time.

use foveal_bench::line::{Call, Figures, Load};

use super::axis::{Scale, shows};
use super::curve::{Better, Point, Series, Setup, Styles, names};
use super::group::{
    Chart, Group, LineGroup, day, described, holding, line_groups, styles_of, warnings,
};
use super::grouping::{Entry, Section, letter};
use super::plot::{Along, Head, Plot};
use super::table::{Cell, Table};
use super::words::{count, micros, number, short, slug};

/// The load lines of a data set; `None` if there are none.
pub fn group(section: &Section) -> Option<Group> {
    let of = holding(section, |figures| match figures {
        Figures::Load(load) => Some(&**load),
        _ => None,
    });
    if of.is_empty() {
        return None;
    }
    // Rates are no setups that readers know by their looks: each drawing starts anew.
    let plots = [
        over_rate(section, &of, ("p50", |load| load.latency_us.p50)),
        over_rate(section, &of, ("p99", |load| load.latency_us.p99)),
        over_time(section, &of),
    ];
    let shown = plots.into_iter().filter(|plot| !plot.series.is_empty());
    Some(Group {
        heading: "Load".into(),
        hints: vec![
            "Latency of a call counts from the moment it was meant to start. An open loop sends \
             at the rate it was told, whether answers come or not; a closed loop sends when an \
             answer came."
                .into(),
        ],
        warnings: warnings(of.iter().map(|(entry, _)| *entry)),
        charts: shown.map(Chart::Plot).collect(),
        table: table(&of),
    })
}

/// How calls were made, in words.
fn how(load: &Load) -> Vec<String> {
    let call = match load.call {
        Call::Search => "search".to_owned(),
        Call::SearchBatch => format!("batches of {}", number(f64::from(load.batch))),
    };
    let open = load.intended_calls_per_second.is_some();
    vec![
        format!("k = {}", load.k),
        call,
        count(u64::from(load.connections), "connection"),
        if open { "open loop".into() } else { "closed loop".into() },
    ]
}

/// Queries a second: those meant to arrive, or those answered where none were meant to.
fn rate(load: &Load) -> f64 {
    load.intended_calls_per_second.map_or(load.qps, |calls| calls * f64::from(load.batch))
}

fn told(entry: &Entry, load: &Load) -> String {
    let mut lines = vec![
        format!("{}, {}", entry.line.system, entry.line.params),
        how(load).join(", "),
        format!("{} queries a second answered", number(load.qps)),
        format!("p50 {}, p99 {}", micros(load.latency_us.p50), micros(load.latency_us.p99)),
        format!("worst {}", micros(load.max_us)),
    ];
    if load.intended_calls_per_second.is_some() {
        lines.insert(2, format!("{} queries a second offered", number(rate(load))));
    }
    let failed: u64 = load.failed.values().sum();
    if failed > 0 {
        lines.push(format!("{} failed", count(failed, "call")));
    }
    lines.join("\n")
}

/// The curves of `line_groups`, their points from `points`; those without points are left out.
fn series(
    line_groups: &[LineGroup<'_, Load>],
    points: impl Fn(&[(&Entry, &Load)]) -> Vec<Point>,
) -> (Vec<Series>, Vec<String>) {
    let mut shown: Vec<(Setup, Vec<Point>)> =
        line_groups.iter().map(|group| (group.setup.clone(), points(&group.of))).collect();
    shown.retain(|(_, points)| !points.is_empty());
    let setups: Vec<Setup> = shown.iter().map(|(setup, _)| setup.clone()).collect();
    let (labels, shared) = names(&setups);
    let styles = styles_of(setups.iter(), &mut Styles::default());
    let series = shown.into_iter().zip(labels).zip(styles);
    let series = series.map(|(((_, mut points), label), style)| {
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        Series { label, style, joined: (0..points.len()).collect(), points }
    });
    (series.collect(), shared)
}

fn over_rate(
    section: &Section,
    of: &[(&Entry, &Load)],
    (name, latency): (&str, fn(&Load) -> f64),
) -> Plot {
    let point = |(entry, load): &(&Entry, &Load)| {
        let (x, y) = (rate(load), latency(load));
        let sound = shows(Scale::Linear, x) && shows(Scale::Log, y);
        sound.then(|| Point { x, y, spread: None, told: told(entry, load) })
    };
    let line_groups = line_groups(of, |_, load| how(load));
    let (series, shared) = series(&line_groups, |of| of.iter().filter_map(point).collect());
    let mut parts = described(&section.data);
    parts.extend(shared);
    Plot {
        head: Head {
            slug: format!("{}-load-{name}", slug(&section.data.name)),
            title: format!("{name} latency over load"),
            parts,
        },
        x: Along {
            name: "queries a second, more is better →".into(),
            scale: Scale::Linear,
            written: short,
            better: None,
        },
        y: Along {
            name: format!("{name} latency"),
            scale: Scale::Log,
            written: micros,
            better: Some(Better::Lower),
        },
        series,
    }
}

fn over_time<'a>(section: &Section, of: &[(&'a Entry, &'a Load)]) -> Plot {
    let facets = |load: &Load| {
        let mut facets = how(load);
        let flying = count(u64::from(load.in_flight), "call");
        let closed = load.intended_calls_per_second.is_none();
        let offered = format!("{}/s", number(rate(load)));
        facets.push(if closed { format!("{flying} in flight") } else { offered });
        facets
    };
    // Each line is a curve of its own, also where one was measured twice.
    let alone = |one: &(&'a Entry, &'a Load)| line_groups(&[*one], |_, load| facets(load));
    let line_groups: Vec<_> = of.iter().flat_map(alone).collect();
    let points = |of: &[(&Entry, &Load)]| {
        let mut points = Vec::new();
        for (entry, load) in of {
            let parts = load.p50_over_time_us.len() as f64;
            for (i, &y) in load.p50_over_time_us.iter().enumerate() {
                let x = load.seconds * (i as f64 + 0.5) / parts;
                if shows(Scale::Linear, x) && shows(Scale::Log, y) {
                    let told = format!("{}\np50 here {}", told(entry, load), micros(y));
                    points.push(Point { x, y, spread: None, told });
                }
            }
        }
        points
    };
    let (series, shared) = series(&line_groups, points);
    let mut parts = described(&section.data);
    parts.extend(shared);
    Plot {
        head: Head {
            slug: format!("{}-load-time", slug(&section.data.name)),
            title: "Median latency while the load lasts".into(),
            parts,
        },
        x: Along {
            name: "seconds since the start".into(),
            scale: Scale::Linear,
            written: short,
            better: None,
        },
        y: Along {
            name: "p50 latency, rising means overload".into(),
            scale: Scale::Log,
            written: micros,
            better: Some(Better::Lower),
        },
        series,
    }
}

fn table(of: &[(&Entry, &Load)]) -> Table {
    let columns = [
        "system",
        "parameters",
        "k",
        "call",
        "connections",
        "loop",
        "in flight",
        "queries/s offered",
        "queries/s answered",
        "recall",
        "p50",
        "p95",
        "p99",
        "worst",
        "calls",
        "failed",
        "machine",
        "day",
    ];
    let four = |value: f64| format!("{value:.4}");
    let row = |(entry, load): &(&Entry, &Load)| {
        let [_, call, _, loops] = <[String; 4]>::try_from(how(load)).unwrap_or_default();
        let failed = load.failed.iter().map(|(code, n)| format!("{code} {n}"));
        vec![
            Cell::text(&entry.line.system),
            Cell::text(&entry.line.params),
            Cell::figure(Some(f64::from(load.k)), number),
            Cell::text(call),
            Cell::figure(Some(f64::from(load.connections)), number),
            Cell::text(loops),
            Cell::figure(Some(f64::from(load.in_flight)), number),
            Cell::figure(load.intended_calls_per_second.map(|_| rate(load)), number),
            Cell::figure(Some(load.qps), number),
            Cell::figure(load.recall, four),
            Cell::figure(Some(load.latency_us.p50), micros),
            Cell::figure(Some(load.latency_us.p95), micros),
            Cell::figure(Some(load.latency_us.p99), micros),
            Cell::figure(Some(load.max_us), micros),
            Cell::figure(Some(load.calls as f64), number),
            Cell::text(failed.collect::<Vec<_>>().join(", ")),
            Cell::text(letter(entry.machine)),
            Cell::text(day(entry)),
        ]
    };
    Table { columns: columns.map(String::from).into(), rows: of.iter().map(row).collect() }
}
