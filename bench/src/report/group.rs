//! Drawings and a table of lines that are compared with each other.

use std::collections::BTreeSet;

use foveal_bench::line::{Dataset, Figures};
use maud::Markup;

use super::bars::Bars;
use super::curve::{Setup, Styles};
use super::grouping::{Entry, Section, letter};
use super::plot::Plot;
use super::table::Table;
use super::words::{count, number};
use super::{build_charts, load_charts, recall_charts};

/// What is compared on the page under one heading.
pub struct Group {
    /// The heading.
    pub heading: String,
    /// How to read it.
    pub hints: Vec<String>,
    /// What to beware of.
    pub warnings: Vec<String>,
    /// The drawings.
    pub charts: Vec<Chart>,
    /// The figures.
    pub table: Table,
}

/// A drawing.
pub enum Chart {
    /// Of curves.
    Plot(Plot),
    /// Of bars.
    Bars(Bars),
}

impl Chart {
    /// The name of its file, without ending.
    pub fn slug(&self) -> &str {
        match self {
            Chart::Plot(plot) => &plot.head.slug,
            Chart::Bars(bars) => &bars.head.slug,
        }
    }

    /// Gives its file another name.
    pub fn rename(&mut self, slug: String) {
        match self {
            Chart::Plot(plot) => plot.head.slug = slug,
            Chart::Bars(bars) => bars.head.slug = slug,
        }
    }

    /// The drawing, see [`Plot::draw`].
    pub fn draw(&self, sheet: Option<&str>) -> Option<Markup> {
        match self {
            Chart::Plot(plot) => plot.draw(sheet),
            Chart::Bars(bars) => bars.draw(sheet),
        }
    }
}

/// The groups of a data set: one for each `k`, builds, load.
pub fn groups(section: &Section, styles: &mut Styles) -> Vec<Group> {
    let mut groups = recall_charts::groups(section, styles);
    groups.extend(build_charts::group(section, styles));
    groups.extend(load_charts::group(section));
    groups
}

/// Lines that make one curve.
pub struct LineGroup<'a, T> {
    /// What they have in common.
    pub setup: Setup,
    /// The lines and their figures.
    pub of: Vec<(&'a Entry, &'a T)>,
}

/// Sorts lines into curves, those of this engine first.
pub fn line_groups<'a, T>(
    of: &[(&'a Entry, &'a T)],
    facets: impl Fn(&Entry, &T) -> Vec<String>,
) -> Vec<LineGroup<'a, T>> {
    let mut line_groups: Vec<LineGroup<'a, T>> = Vec::new();
    for &(entry, figures) in of {
        let setup = Setup {
            system: entry.line.system.clone(),
            facets: facets(entry, figures),
            machine: entry.machine,
            version: entry.line.origin.version.clone(),
        };
        match line_groups.iter_mut().find(|group| group.setup == setup) {
            Some(group) => group.of.push((entry, figures)),
            None => line_groups.push(LineGroup { setup, of: vec![(entry, figures)] }),
        }
    }
    let first = |system: &str| of.iter().position(|(entry, _)| entry.line.system == system);
    line_groups.sort_by_cached_key(|group| {
        let system = &group.setup.system;
        (!system.starts_with("foveal"), first(system))
    });
    line_groups
}

/// The lines of a section that hold figures of one kind.
pub fn holding<'a, T>(
    section: &'a Section,
    pick: impl Fn(&'a Figures) -> Option<&'a T>,
) -> Vec<(&'a Entry, &'a T)> {
    let entries = section.entries.iter();
    entries.filter_map(|entry| Some((entry, pick(&entry.line.figures)?))).collect()
}

/// Styles of the setups of one plot, all different.
pub fn styles_of<'a>(setups: impl Iterator<Item = &'a Setup>, styles: &mut Styles) -> Vec<usize> {
    let mut taken = Vec::new();
    for setup in setups {
        let style = styles.of(setup, &taken);
        taken.push(style);
    }
    taken
}

/// The data set in a few words: name, rows and dimension, metric.
pub fn described(data: &Dataset) -> Vec<String> {
    let size = match (data.n, data.dim) {
        (Some(n), Some(dim)) => format!("{} × {dim}", number(n as f64)),
        (Some(n), None) => count(n, "vector"),
        (None, Some(dim)) => count(u64::from(dim), "dimension"),
        (None, None) => String::new(),
    };
    let metric = data.metric.map(|metric| metric.to_string()).unwrap_or_default();
    let parts = [data.name.clone(), size, metric].into_iter();
    parts.filter(|part| !part.is_empty()).collect()
}

/// What makes lines hard to compare: other machines, days or base files.
pub fn warnings<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> Vec<String> {
    let mut warnings = Vec::new();
    let machines: BTreeSet<usize> = entries.clone().map(|entry| entry.machine).collect();
    if machines.len() > 1 {
        let letters: Vec<String> = machines.into_iter().map(letter).collect();
        warnings.push(format!(
            "These drawings mix machines {}: times and rates of different machines do not \
             compare.",
            letters.join(", ")
        ));
    }
    let days: BTreeSet<&str> = entries.clone().map(day).collect();
    if let (Some(first), Some(last)) = (days.first(), days.last())
        && first != last
    {
        warnings.push(format!("Measured on {} days, from {first} to {last}.", days.len()));
    }
    let digests: BTreeSet<&str> =
        entries.filter_map(|entry| entry.line.dataset.digest.as_deref()).collect();
    if digests.len() > 1 {
        warnings.push("The lines name base files with different contents.".into());
    }
    warnings
}

/// The day of a line.
pub fn day(entry: &Entry) -> &str {
    let date = &entry.line.origin.date;
    date.split_once('T').map_or(date, |(day, _)| day)
}
