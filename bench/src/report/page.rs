//! The page: everything in one file, nothing fetched from anywhere.

use std::collections::BTreeSet;

use foveal_bench::machine::Machine;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::group::{Group, day, described};
use super::grouping::{Entry, GroupedLines, Section, letter};
use super::style::{self, Background};
use super::words::{bytes, count, slug};

/// The whole page: of each section of `grouped` its groups.
pub fn page(grouped: &GroupedLines, groups: &[Vec<Group>]) -> String {
    let names: Vec<&str> = grouped.sections.iter().map(|section| &*section.data.name).collect();
    let title = format!("Measured on {}", names.join(", "));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
    let css = format!(
        "{}{}{}",
        style::properties(),
        include_str!("page.css"),
        style::sheet(Background::Either)
    );
    let sections = || grouped.sections.iter().zip(groups).enumerate();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(policy);
                title { (title) }
                style { (PreEscaped(css)) }
            }
            body {
                (header(grouped))
                main {
                    @for (i, (section, groups)) in sections() {
                        (drawn(grouped, section, groups, &anchor(i, section)))
                    }
                    (machines(grouped))
                }
                div id="told" role="status" hidden {}
                script { (PreEscaped(include_str!("page.js"))) }
            }
        }
    }
    .into_string()
}

fn anchor(place: usize, section: &Section) -> String {
    format!("{}-{}", slug(&section.data.name), place + 1)
}

fn header(grouped: &GroupedLines) -> Markup {
    let entries = || grouped.sections.iter().flat_map(|section| &section.entries);
    let systems: BTreeSet<&str> = entries().map(|entry| &*entry.line.system).collect();
    let days = days(entries());
    let systems: Vec<&str> = systems.into_iter().collect();
    html! {
        header {
            h1 { "Vector search, measured" }
            p.faint {
                (count(entries().count() as u64, "line")) " of " (systems.join(", ")) ", "
                (days) ", " (count(grouped.machines.len() as u64, "machine"))
            }
            (legend())
            nav aria-label="Data sets" {
                ul {
                    @for (i, section) in grouped.sections.iter().enumerate() {
                        li { a href={ "#" (anchor(i, section)) } { (section.data.name) } }
                    }
                    li { a href="#machines" { "Machines" } }
                }
            }
        }
    }
}

/// How to read the drawings.
fn legend() -> Markup {
    html! {
        p.faint {
            "Lines join the points that no other point of their curve beats in both figures; "
            "points that are beaten are faint. Thin bars reach from the slowest to the fastest "
            "pass. Recall is spread by its nines: 0.9, 0.99 and 0.999 lie equally far apart. "
            "Queries a second per GB count the memory that answers, cached full vectors "
            "included, in 10⁹ bytes. Touch a point for its figures, a name to hide its curve."
        }
    }
}

/// The days of some lines, as a range.
fn days<'a>(entries: impl Iterator<Item = &'a Entry>) -> String {
    let days: BTreeSet<&str> = entries.map(day).collect();
    match (days.first(), days.last()) {
        (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
        (Some(first), _) => (*first).to_owned(),
        _ => String::new(),
    }
}

fn drawn(grouped: &GroupedLines, section: &Section, groups: &[Group], anchor: &str) -> Markup {
    html! {
        section id=(anchor) {
            h2 { (section.data.name) }
            p.faint { (described(&section.data)[1..].join(" · ")) }
            @for group in groups {
                h3 { (group.heading) }
                @for warning in &group.warnings { p.warn role="note" { (warning) } }
                @for hint in &group.hints { p.faint { (hint) } }
                div.charts {
                    @for drawing in group.charts.iter().filter_map(|chart| chart.draw(None)) {
                        figure { (drawing) }
                    }
                }
                (group.table.draw())
            }
            (origins(grouped, section))
        }
    }
}

/// Which commands of which version gave the lines of a section, and where.
fn origins(grouped: &GroupedLines, section: &Section) -> Markup {
    let mut origins: Vec<(&Entry, Vec<&Entry>)> = Vec::new();
    for entry in &section.entries {
        let key = |entry: &Entry| {
            let line = &entry.line;
            (line.system.clone(), line.origin.version.clone(), entry.machine)
        };
        match origins.iter_mut().find(|(first, _)| key(first) == key(entry)) {
            Some((_, entries)) => entries.push(entry),
            None => origins.push((entry, vec![entry])),
        }
    }
    html! {
        h3 { "Where the figures come from" }
        @for (first, entries) in &origins {
            @let commands: BTreeSet<&str> =
                entries.iter().map(|entry| &*entry.line.origin.command).collect();
            p {
                strong { (first.line.system) } ", version " (first.line.origin.version) ", "
                (days(entries.iter().copied())) ", "
                a href="#machines" { "machine " (letter(first.machine)) }
                @if grouped.machines[first.machine].is_none() { " (not named)" }
            }
            details open[commands.len() <= 4] {
                summary { (count(commands.len() as u64, "command")) }
                @for command in commands { pre { (command) } }
            }
        }
    }
}

fn machines(grouped: &GroupedLines) -> Markup {
    html! {
        section id="machines" {
            h2 { "Machines" }
            @for (i, machine) in grouped.machines.iter().enumerate() {
                h3 { "Machine " (letter(i)) }
                @match machine {
                    Some(machine) => (told(machine)),
                    None => p { "Lines that name no machine." },
                }
            }
        }
    }
}

fn told(machine: &Machine) -> Markup {
    let unknown = |text: String| if text.is_empty() { "unknown".to_owned() } else { text };
    let rows = [
        ("Processor", machine.cpu.clone()),
        ("Logical processors used", machine.cores.to_string()),
        ("Instruction sets", machine.flags.join(" ")),
        ("Last cache", machine.cache_bytes.map(|size| bytes(size as f64)).unwrap_or_default()),
        ("Memory", bytes(machine.memory_bytes as f64)),
        ("System", machine.system.clone()),
    ];
    html! {
        dl { @for (name, value) in rows { dt { (name) } dd { (unknown(value)) } } }
    }
}
