//! `foveal-bench report`: one page, and pictures, of lines that the other verbs wrote.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use foveal_bench::line::{self, Line};

use self::curve::Looks;
use self::group::Group;
use self::look::Ground;
use self::publish::{Output, publish};
use self::shelf::Shelf;

mod axis;
mod bars;
mod build_charts;
mod curve;
mod group;
mod load_charts;
mod look;
mod page;
mod plot;
#[cfg(feature = "png")]
mod png;
mod publish;
mod recall_charts;
#[cfg(test)]
mod sample;
mod shelf;
mod table;
mod words;

/// Draw measured lines: a page that needs nothing else, and pictures.
#[derive(Args)]
pub struct ReportArgs {
    /// Files of lines, as the other verbs write them
    #[arg(required = true, value_name = "LINES.jsonl")]
    lines: Vec<PathBuf>,
    /// The page to write
    #[arg(long, value_name = "FILE.html")]
    out: PathBuf,
    /// Write every drawing as SVG into this directory
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// Write every drawing as PNG into this directory, light and dark (feature `png`)
    #[arg(long, value_name = "DIR")]
    png: Option<PathBuf>,
}

/// Reads all lines, then writes all files.
///
/// # Errors
/// A file that cannot be read or holds something else; no lines; a place that cannot be written.
pub fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let mut lines: Vec<Line> = Vec::new();
    for path in &args.lines {
        lines.append(&mut line::read(path)?);
    }
    if lines.is_empty() {
        bail!("no lines in {}", shown(&args.lines));
    }
    let shelf = Shelf::of(lines);
    let mut looks = Looks::default();
    let mut groups: Vec<Vec<Group>> =
        shelf.sections.iter().map(|section| group::groups(section, &mut looks)).collect();
    name_apart(&mut groups);
    let page = page::page(&shelf, &groups).into_bytes();
    let mut outputs = vec![Output { path: args.out.clone(), content: page }];
    if let Some(dir) = &args.svg {
        let of = |name: &str, svg: &str| Ok((format!("{name}.svg"), svg.as_bytes().to_vec()));
        outputs.append(&mut drawings(&groups, dir, Ground::Either, of)?);
    }
    if let Some(dir) = &args.png {
        outputs.append(&mut pictures(&groups, dir)?);
    }
    for dir in [&args.svg, &args.png].into_iter().flatten() {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    publish(outputs)
}

fn shown(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(", ")
}

/// Gives every drawing a name of its own, where data sets have names alike.
fn name_apart(groups: &mut [Vec<Group>]) {
    let mut known = BTreeSet::new();
    for chart in groups.iter_mut().flatten().flat_map(|group| &mut group.charts) {
        let first = chart.slug().to_owned();
        let mut number = 1;
        while !known.insert(chart.slug().to_owned()) {
            number += 1;
            chart.rename(format!("{first}-{number}"));
        }
    }
}

/// Every drawing as a file in `dir`: its name and content from `file`.
fn drawings(
    groups: &[Vec<Group>],
    dir: &Path,
    ground: Ground,
    file: impl Fn(&str, &str) -> anyhow::Result<(String, Vec<u8>)>,
) -> anyhow::Result<Vec<Output>> {
    let style = look::style(ground);
    let mut outputs = Vec::new();
    for chart in groups.iter().flatten().flat_map(|group| &group.charts) {
        let Some(svg) = chart.draw(Some(&style)) else { continue };
        let made = file(chart.slug(), &svg.into_string());
        let (name, content) = made.with_context(|| chart.slug().to_owned())?;
        outputs.push(Output { path: dir.join(name), content });
    }
    Ok(outputs)
}

#[cfg(feature = "png")]
fn pictures(groups: &[Vec<Group>], dir: &Path) -> anyhow::Result<Vec<Output>> {
    let painter = png::Painter::new();
    let mut outputs = Vec::new();
    for (ground, ending) in [(Ground::Light, ".png"), (Ground::Dark, "-dark.png")] {
        let of = |name: &str, svg: &str| Ok((format!("{name}{ending}"), painter.paint(svg)?));
        outputs.append(&mut drawings(groups, dir, ground, of)?);
    }
    Ok(outputs)
}

#[cfg(not(feature = "png"))]
fn pictures(_: &[Vec<Group>], _: &Path) -> anyhow::Result<Vec<Output>> {
    bail!("--png: this program was built without the feature png")
}
