//! Which lines belong together: by data set, and by the machine they come from.

use foveal_bench::line::{Dataset, Figures, Line};
use foveal_bench::machine::Machine;

use super::words::printable;

/// All lines, sorted into sections.
pub struct GroupedLines {
    /// One a data set, in order of appearance.
    pub sections: Vec<Section>,
    /// Every machine named, in order of appearance; `None` where a line names none.
    pub machines: Vec<Option<Machine>>,
}

/// The lines of one data set: same name, and equal size and metric as far as lines tell them.
pub struct Section {
    /// What is known of the data.
    pub data: Dataset,
    /// Its lines, in order of appearance.
    pub entries: Vec<Entry>,
}

/// A line and the machine it comes from.
pub struct Entry {
    /// The line.
    pub line: Line,
    /// The place of its machine in [`GroupedLines::machines`].
    pub machine: usize,
}

impl GroupedLines {
    /// Sorts `lines`; a line that leaves out size or metric joins the data of the same name.
    pub fn of(lines: Vec<Line>) -> GroupedLines {
        let mut grouped = GroupedLines { sections: Vec::new(), machines: Vec::new() };
        for mut line in lines {
            clean(&mut line);
            let machine = place_of(&mut grouped.machines, &line.origin.machine);
            let found = grouped.sections.iter_mut().find(|s| same(&s.data, &line.dataset));
            match found {
                Some(section) => {
                    merge(&mut section.data, &line.dataset);
                    section.entries.push(Entry { line, machine });
                }
                None => grouped.sections.push(Section {
                    data: line.dataset.clone(),
                    entries: vec![Entry { line, machine }],
                }),
            }
        }
        grouped
    }
}

/// The name of a machine on the page: A, B, and so on.
pub fn letter(machine: usize) -> String {
    match u8::try_from(machine) {
        Ok(place) if place < 26 => char::from(b'A' + place).to_string(),
        _ => format!("no. {}", machine + 1),
    }
}

fn place_of<T: PartialEq + Clone>(known: &mut Vec<T>, wanted: &T) -> usize {
    known.iter().position(|other| other == wanted).unwrap_or_else(|| {
        known.push(wanted.clone());
        known.len() - 1
    })
}

fn agree<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
    a.is_none() || b.is_none() || a == b
}

/// Whether both may be the same data: what both tell is equal.
fn same(a: &Dataset, b: &Dataset) -> bool {
    a.name == b.name && agree(&a.n, &b.n) && agree(&a.dim, &b.dim) && agree(&a.metric, &b.metric)
}

fn merge(into: &mut Dataset, from: &Dataset) {
    into.n = into.n.or(from.n);
    into.dim = into.dim.or(from.dim);
    into.metric = into.metric.or(from.metric);
}

/// Makes every text of a line fit for HTML and XML.
fn clean(line: &mut Line) {
    let texts = [
        &mut line.system,
        &mut line.dataset.name,
        &mut line.params,
        &mut line.origin.version,
        &mut line.origin.date,
        &mut line.origin.command,
    ];
    for text in texts {
        *text = printable(text);
    }
    if let Figures::Recall(recall) = &mut line.figures {
        recall.io = recall.io.as_deref().map(printable);
    }
    if let Figures::Load(load) = &mut line.figures {
        let failed = std::mem::take(&mut load.failed);
        load.failed = failed.into_iter().map(|(code, n)| (printable(&code), n)).collect();
    }
    if let Some(machine) = &mut line.origin.machine {
        machine.cpu = printable(&machine.cpu);
        machine.system = printable(&machine.system);
        machine.flags = machine.flags.iter().map(|flag| printable(flag)).collect();
    }
}
