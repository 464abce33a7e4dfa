//! `foveal-bench report`: one page, and pictures, of lines that the other verbs wrote.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use foveal_bench::line::{self, Line};

use self::curve::Styles;
use self::group::Group;
use self::grouping::GroupedLines;
use self::publish::{Output, publish};
use self::style::Background;

mod axis;
mod bars;
mod build_charts;
mod curve;
mod group;
mod grouping;
mod load_charts;
mod page;
mod plot;
#[cfg(feature = "png")]
mod png;
mod publish;
mod recall_charts;
#[cfg(test)]
mod sample;
mod style;
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
        if args.out.exists() && path.canonicalize().ok() == args.out.canonicalize().ok() {
            bail!("{}: --out would replace what is read", args.out.display());
        }
        lines.append(&mut line::read(path)?);
    }
    if lines.is_empty() {
        bail!("no lines in {}", shown(&args.lines));
    }
    let grouped = GroupedLines::of(lines);
    let mut styles = Styles::default();
    let mut groups: Vec<Vec<Group>> =
        grouped.sections.iter().map(|section| group::groups(section, &mut styles)).collect();
    name_apart(&mut groups);
    let page = page::page(&grouped, &groups).into_bytes();
    let mut outputs = vec![Output { path: args.out.clone(), content: page }];
    if let Some(dir) = &args.svg {
        let of = |name: &str, svg: &str| Ok((format!("{name}.svg"), svg.as_bytes().to_vec()));
        outputs.append(&mut drawings(&groups, dir, Background::Either, of)?);
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
    background: Background,
    file: impl Fn(&str, &str) -> anyhow::Result<(String, Vec<u8>)>,
) -> anyhow::Result<Vec<Output>> {
    let sheet = style::sheet(background);
    let mut outputs = Vec::new();
    for chart in groups.iter().flatten().flat_map(|group| &group.charts) {
        let Some(svg) = chart.draw(Some(&sheet)) else { continue };
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
    for (background, ending) in [(Background::Light, ".png"), (Background::Dark, "-dark.png")] {
        let of = |name: &str, svg: &str| Ok((format!("{name}{ending}"), painter.paint(svg)?));
        outputs.append(&mut drawings(groups, dir, background, of)?);
    }
    Ok(outputs)
}

#[cfg(not(feature = "png"))]
fn pictures(_: &[Vec<Group>], _: &Path) -> anyhow::Result<Vec<Output>> {
    bail!("--png: this program was built without the feature png")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use foveal_bench::machine::Machine;

    use super::*;

    fn write(path: &Path, lines: &[Line]) {
        let text: Vec<String> =
            lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
        fs::write(path, text.join("\n")).unwrap();
    }

    /// A directory, and the arguments with which `run` reports `lines` in it.
    fn report_of(lines: &[Line]) -> (tempfile::TempDir, ReportArgs) {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("lines.jsonl"), lines);
        let args = ReportArgs {
            lines: vec![dir.path().join("lines.jsonl")],
            out: dir.path().join("report.html"),
            svg: Some(dir.path().join("svg")),
            png: None,
        };
        (dir, args)
    }

    /// The page of `lines`.
    fn page_of(lines: &[Line]) -> String {
        let (_dir, args) = report_of(lines);
        run(&args).unwrap();
        fs::read_to_string(&args.out).unwrap()
    }

    fn everything() -> Vec<Line> {
        let mut lines = Vec::new();
        for data in ["sift", "glove"] {
            lines.push(sample::build("foveal 4-bit", data));
            for (share, qps) in [(0.9, 9e3), (0.99, 4e3), (0.999, 1e3), (0.95, 2e3)] {
                lines.push(sample::point("foveal 4-bit", data, share, qps));
                lines.push(sample::point("hnswlib", data, share, qps / 2.0));
            }
            lines.push(sample::load("foveal server", data, 1_000.0, 900.0));
            lines.push(sample::load("foveal server", data, 2_000.0, 9_000.0));
        }
        lines
    }

    #[test]
    fn every_data_set_has_a_section_with_all_drawings() {
        let (dir, args) = report_of(&everything());
        run(&args).unwrap();
        let page = fs::read_to_string(&args.out).unwrap();
        for data in ["sift", "glove"] {
            assert!(page.contains(&format!("<h2>{data}</h2>")));
            for name in [
                "k10-qps",
                "k10-reads",
                "k10-p99",
                "k10-qps-per-gb",
                "build-time",
                "build-memory",
                "memory",
                "load-p50",
                "load-p99",
                "load-time",
            ] {
                let svg = dir.path().join(format!("svg/{data}-{name}.svg"));
                let svg = fs::read_to_string(svg).expect(name);
                assert!(svg.starts_with("<svg xmlns=") && svg.contains("prefers-color-scheme"));
            }
            // Nothing is known of the disk, so nothing is drawn.
            assert!(!dir.path().join(format!("svg/{data}-disk.svg")).exists());
        }
        assert_eq!(page.matches("<figure>").count(), 20);
        assert!(page.contains("foveal-bench recall") && page.contains("RESOURCE_EXHAUSTED 3"));
    }

    #[test]
    fn nothing_is_fetched_from_anywhere() {
        let page = page_of(&everything()).replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for outside in ["http:", "https:", "src=", "@import", "url(", "<link", "//cdn"] {
            assert!(!page.contains(outside), "{outside}");
        }
        let targets = page.split("href=\"").skip(1);
        assert!(targets.into_iter().all(|target| target.starts_with('#')));
    }

    #[test]
    fn hostile_names_stay_text() {
        let bad = "<script>alert(1)</script>\"'&\u{1b}";
        let mut lines = vec![
            sample::point(bad, bad, 0.9, 100.0),
            sample::build(bad, bad),
            sample::load(bad, bad, 10.0, 100.0),
        ];
        for line in &mut lines {
            line.params = bad.into();
            line.origin.version = bad.into();
            line.origin.command = bad.into();
            line.origin.date = bad.into();
            line.origin.machine = Some(machine(bad));
            if let foveal_bench::line::Figures::Recall(recall) = &mut line.figures {
                recall.io = Some(bad.into());
            }
        }
        let (dir, args) = report_of(&lines);
        run(&args).unwrap();
        let mut texts = vec![fs::read_to_string(&args.out).unwrap()];
        for file in fs::read_dir(dir.path().join("svg")).unwrap() {
            texts.push(fs::read_to_string(file.unwrap().path()).unwrap());
        }
        assert!(texts.len() > 5);
        for text in texts {
            assert!(!text.contains("<script>alert") && !text.contains('\u{1b}'));
            assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;"));
        }
    }

    fn machine(cpu: &str) -> Machine {
        Machine {
            cpu: cpu.into(),
            cores: 2,
            flags: vec![cpu.into()],
            cache_bytes: None,
            memory_bytes: 1 << 30,
            system: cpu.into(),
        }
    }

    #[test]
    fn the_page_warns_of_other_machines_and_days() {
        let mut lines = vec![sample::point("a", "d", 0.9, 9.0), sample::point("b", "d", 0.9, 8.0)];
        assert!(!page_of(&lines).contains("class=\"warn\""));
        lines[1].origin.machine = Some(machine("other"));
        lines[1].origin.date = "2026-11-22T09:00:00Z".into();
        let page = page_of(&lines);
        assert!(page.contains("mix machines A, B"), "{page}");
        assert!(page.contains("from 2026-11-21 to 2026-11-22"));
        assert!(page.contains("a, on A") && page.contains("b, on B"));
    }

    #[test]
    fn data_of_another_size_is_other_data() {
        let mut lines = vec![sample::point("a", "d", 0.9, 9.0), sample::point("b", "d", 0.9, 8.0)];
        lines[1].dataset.n = None;
        assert_eq!(page_of(&lines).matches("<h2>d</h2>").count(), 1);
        lines[1].dataset.n = Some(5);
        let (dir, args) = report_of(&lines);
        run(&args).unwrap();
        assert_eq!(fs::read_to_string(&args.out).unwrap().matches("<h2>d</h2>").count(), 2);
        assert!(dir.path().join("svg/d-k10-qps-2.svg").exists());
    }

    #[test]
    fn figures_that_no_axis_shows_do_no_harm() {
        let mut lines = Vec::new();
        for (share, qps) in [(0.0, 1.0), (1.0, 1e300), (7.0, -5.0), (-1.0, 1e-300)] {
            lines.push(sample::point("a", "d", share, qps));
            lines.push(sample::load("a", "d", qps, qps));
        }
        let page = page_of(&lines);
        assert!(!page.contains("NaN") && !page.contains("\"inf"), "{page}");
    }

    #[test]
    fn bad_input_is_one_error_and_no_file() {
        let (dir, mut args) = report_of(&[]);
        let failed = |args: &ReportArgs| format!("{:#}", run(args).unwrap_err());
        assert!(failed(&args).contains("no lines in"));
        fs::write(&args.lines[0], "{\"ours\":false}").unwrap();
        assert!(failed(&args).contains("lines.jsonl: line 1"));
        args.lines.push(dir.path().join("missing.jsonl"));
        write(&args.lines[0], &everything());
        assert!(failed(&args).contains("missing.jsonl"));
        args.lines.pop();
        args.out = dir.path().join("nowhere/report.html");
        assert!(failed(&args).contains("nowhere/report.html"));
        args.out = args.lines[0].clone();
        assert!(failed(&args).contains("would replace"));
        args.out = dir.path().join("nowhere/report.html");
        args.svg = None;
        assert!(failed(&args).contains("nowhere/report.html"));
        let left = fs::read_dir(dir.path()).unwrap();
        let left = left.map(|file| file.unwrap().file_name()).filter(|name| name != "svg");
        assert_eq!(left.collect::<Vec<_>>(), ["lines.jsonl"]);
    }

    #[cfg(feature = "png")]
    #[test]
    fn every_drawing_is_painted_light_and_dark() {
        let (dir, mut args) = report_of(&everything());
        args.png = Some(dir.path().join("png"));
        run(&args).unwrap();
        let of = |name: &str| fs::read(dir.path().join("png").join(name)).unwrap();
        let (light, dark) = (of("sift-k10-qps.png"), of("sift-k10-qps-dark.png"));
        assert!(light.starts_with(b"\x89PNG") && light != dark);
        let count = |kind: &str| fs::read_dir(dir.path().join(kind)).unwrap().count();
        assert_eq!(count("png"), 2 * count("svg"));
    }
}
