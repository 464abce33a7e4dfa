//! What builds take: time, memory, disk.

use foveal_bench::line::{Build, Figures};

use super::bars::{Bar, Bars};
use super::curve::{Setup, Styles, names};
use super::group::{Chart, Group, day, described, holding, line_groups, styles_of, warnings};
use super::grouping::{Entry, Section, letter};
use super::plot::Head;
use super::table::{Cell, Table};
use super::words::{bytes, count, number, seconds, slug};

/// One drawing: a cost of the build.
struct Measure {
    slug: &'static str,
    title: &'static str,
    name: &'static str,
    written: fn(f64) -> String,
    value: fn(&Build) -> Option<f64>,
}

const MEASURES: [Measure; 4] = [
    Measure {
        slug: "build-time",
        title: "Build time",
        name: "shorter is better",
        written: seconds,
        value: |build| Some(build.build_seconds),
    },
    Measure {
        slug: "build-memory",
        title: "Peak memory of the build",
        name: "resident bytes, less is better",
        written: bytes,
        value: |build| Some(build.peak_rss_bytes? as f64),
    },
    Measure {
        slug: "memory",
        title: "Memory to answer queries",
        name: "bytes a vector without the full store, less is better",
        written: bytes,
        value: |build| build.resident_bytes_per_vector,
    },
    Measure {
        slug: "disk",
        title: "Size on disk",
        name: "bytes of all files, less is better",
        written: bytes,
        value: |build| Some(build.disk_bytes? as f64),
    },
];

/// The builds of a data set; `None` if no line tells of any.
pub fn group(section: &Section, styles: &mut Styles) -> Option<Group> {
    let of = holding(section, |figures| match figures {
        Figures::Build(build) => Some(build),
        _ => None,
    });
    if of.is_empty() {
        return None;
    }
    let drawn = MEASURES.iter().map(|measure| bars(section, &of, measure, styles));
    Some(Group {
        heading: "Build".into(),
        hints: Vec::new(),
        warnings: warnings(of.iter().map(|(entry, _)| *entry)),
        charts: drawn.filter(|bars| !bars.bars.is_empty()).map(Chart::Bars).collect(),
        table: table(&of),
    })
}

fn bars(
    section: &Section,
    of: &[(&Entry, &Build)],
    measure: &Measure,
    styles: &mut Styles,
) -> Bars {
    let sound = |value: &f64| value.is_finite() && *value >= 0.0;
    let value = |build: &Build| (measure.value)(build).filter(sound);
    let of: Vec<_> = of.iter().copied().filter(|(_, build)| value(build).is_some()).collect();
    let line_groups = line_groups(&of, |entry, build| {
        vec![entry.line.params.clone(), count(u64::from(build.threads), "thread")]
    });
    let setups: Vec<Setup> = line_groups.iter().map(|group| group.setup.clone()).collect();
    let (labels, shared) = names(&setups);
    // Builds look like the curves of their system.
    let bare = |setup: &Setup| Setup { facets: Vec::new(), ..setup.clone() };
    let bare: Vec<Setup> = setups.iter().map(bare).collect();
    let styles = styles_of(bare.iter(), styles);
    let mut bars = Vec::new();
    for ((group, label), style) in line_groups.iter().zip(labels).zip(styles) {
        for (entry, build) in &group.of {
            let value = value(build).unwrap_or_default();
            let told = format!(
                "{}, {}\n{}: {}\n{}",
                entry.line.system,
                entry.line.params,
                measure.title,
                (measure.written)(value),
                entry.line.origin.date
            );
            bars.push(Bar { label: label.clone(), style, value, told });
        }
    }
    let mut parts = described(&section.data);
    parts.extend(shared);
    Bars {
        head: Head {
            slug: format!("{}-{}", slug(&section.data.name), measure.slug),
            title: measure.title.into(),
            parts,
        },
        name: measure.name.into(),
        written: measure.written,
        bars,
    }
}

fn table(of: &[(&Entry, &Build)]) -> Table {
    let columns = [
        "system",
        "parameters",
        "threads",
        "seconds",
        "peak memory",
        "RAM a vector",
        "on disk",
        "digest",
        "machine",
        "day",
    ];
    let row = |(entry, build): &(&Entry, &Build)| {
        vec![
            Cell::text(&entry.line.system),
            Cell::text(&entry.line.params),
            Cell::figure(Some(f64::from(build.threads)), number),
            Cell::figure(Some(build.build_seconds), number),
            Cell::figure(build.peak_rss_bytes.map(|bytes| bytes as f64), bytes),
            Cell::figure(build.resident_bytes_per_vector, bytes),
            Cell::figure(build.disk_bytes.map(|bytes| bytes as f64), bytes),
            Cell::text(build.digest.as_deref().map(super::words::printable).unwrap_or_default()),
            Cell::text(letter(entry.machine)),
            Cell::text(day(entry)),
        ]
    };
    Table { columns: columns.map(String::from).into(), rows: of.iter().map(row).collect() }
}
