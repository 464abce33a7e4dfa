//! `foveal inspect`: what an index says about itself.

use std::path::PathBuf;

use clap::Args;
use foveal_datasets::{Element, Metric};
use foveal_index::{DecodeQuality, Manifest, Measured};
use serde::Serialize;

use super::exit_code::Outcome;
use super::output::{Format, Output};
use super::table::{Table, bytes, grouped, seconds};
use super::terminal::Terminal;

/// Show what an index holds and how it was built.
#[derive(Args)]
pub(crate) struct InspectArgs {
    /// The index: a directory made by `foveal build`.
    #[arg(value_name = "DIR")]
    index: PathBuf,
    /// The form of the result.
    #[arg(long, value_enum, default_value = "table", value_name = "table|json")]
    #[arg(hide_possible_values = true)]
    format: Format,
}

/// What `inspect --format json` prints, fields in this order.
#[derive(Serialize)]
struct InspectJson<'a> {
    n: u64,
    dim: u32,
    metric: Metric,
    element: Element,
    bits: u8,
    max_degree: u32,
    list_size: u32,
    alpha: f32,
    seed: u64,
    payload: bool,
    disk_bytes: u64,
    format_version: u32,
    digest: &'a str,
    files: Vec<FileJson<'a>>,
    /// Null where the index came without measurements.
    measured: Option<MeasuredJson>,
}

#[derive(Serialize)]
struct FileJson<'a> {
    name: &'a str,
    bytes: u64,
    xxh3: String,
}

#[derive(Serialize)]
struct MeasuredJson {
    build_seconds: f64,
    predicted_peak_bytes: u64,
    peak_rss_bytes: u64,
    /// Only where it has token codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    decodes: Option<DecodeQuality>,
}

/// Reads the manifest and prints it.
///
/// # Errors
/// The directory is no index or cannot be read.
pub(crate) fn run(args: &InspectArgs, terminal: &Terminal) -> anyhow::Result<Outcome> {
    let (manifest, measured) = foveal_index::inspect(&args.index)?;
    let mut output = Output::stdout();
    match args.format {
        Format::Json => output.print_json(&json_of(&manifest, measured.as_ref()))?,
        Format::Table => output.print(&table_of(&manifest, measured.as_ref(), terminal))?,
    }
    Ok(Outcome::Done)
}

fn disk_bytes(manifest: &Manifest) -> u64 {
    manifest.files.iter().map(|file| file.bytes).sum()
}

fn json_of<'a>(manifest: &'a Manifest, measured: Option<&Measured>) -> InspectJson<'a> {
    let files = manifest.files.iter();
    InspectJson {
        n: manifest.n,
        dim: manifest.dim,
        metric: manifest.metric,
        element: manifest.element,
        bits: manifest.bits,
        max_degree: manifest.max_degree,
        list_size: manifest.list_size,
        alpha: manifest.alpha,
        seed: manifest.seed,
        payload: manifest.payload,
        disk_bytes: disk_bytes(manifest),
        format_version: manifest.format_version,
        digest: &manifest.digest,
        files: files
            .map(|file| FileJson {
                name: &file.name,
                bytes: file.bytes,
                xxh3: file.xxh3.to_string(),
            })
            .collect(),
        measured: measured.map(|measured| MeasuredJson {
            build_seconds: measured.build_seconds,
            predicted_peak_bytes: measured.predicted_peak_bytes,
            peak_rss_bytes: measured.peak_rss_bytes,
            decodes: measured.decodes,
        }),
    }
}

fn table_of(manifest: &Manifest, measured: Option<&Measured>, terminal: &Terminal) -> String {
    let mut about = Table::default();
    about.line("vectors", format!("{} x {}", grouped(manifest.n), manifest.dim));
    about.line("element", manifest.element.to_string());
    about.line("metric", manifest.metric.to_string());
    about.line("codes", format!("{} bits a dimension", manifest.bits));
    about.line("max degree", manifest.max_degree.to_string());
    about.line("list size", manifest.list_size.to_string());
    about.line("alpha", manifest.alpha.to_string());
    about.line("seed", manifest.seed.to_string());
    about.line("payload", if manifest.payload { "yes" } else { "none" });
    about.line("format version", manifest.format_version.to_string());
    about.line("digest", manifest.digest.as_str());
    if let Some(measured) = measured {
        about.gap();
        about.line("built in", seconds(measured.build_seconds));
        about.line("peak memory", bytes(measured.peak_rss_bytes));
    }
    let mut files = Table::default();
    for file in &manifest.files {
        files.line(&file.name, format!("{:>10}", bytes(file.bytes)));
    }
    files.line("in all", format!("{:>10}", bytes(disk_bytes(manifest))));
    let (index, list) = (terminal.bold("Index"), terminal.bold("Files"));
    format!("{index}\n{}\n{list}\n{}", about.render(terminal), files.render(terminal))
}

#[cfg(test)]
mod tests {
    use foveal_index::FileEntry;

    use super::*;

    fn manifest() -> Manifest {
        let entry = |name: &str, bytes| FileEntry { name: name.into(), bytes, xxh3: "0f".into() };
        Manifest {
            format_version: 1,
            n: 100,
            dim: 8,
            metric: Metric::Cosine,
            element: Element::F16,
            bits: 4,
            max_degree: 32,
            list_size: 96,
            alpha: 1.2,
            seed: 42,
            payload: true,
            tokens: false,
            bias: false,
            extremes: 0,
            files: vec![entry("codes", 400), entry("graph", 600)],
            digest: "abc".into(),
            checksum: "def".into(),
        }
    }

    #[test]
    fn json_has_its_fields_in_order() {
        let text = serde_json::to_string(&json_of(&manifest(), None)).unwrap();
        let wanted = concat!(
            r#"{"n":100,"dim":8,"metric":"cosine","element":"f16","bits":4,"max_degree":32,"#,
            r#""list_size":96,"alpha":1.2,"seed":42,"payload":true,"#,
            r#""disk_bytes":1000,"format_version":1,"digest":"abc","#,
            r#""files":[{"name":"codes","bytes":400,"xxh3":"0f"},"#,
            r#"{"name":"graph","bytes":600,"xxh3":"0f"}],"measured":null}"#
        );
        assert_eq!(text, wanted);
    }

    #[test]
    fn the_table_names_every_file() {
        let measured = Measured {
            build_seconds: 1.5,
            predicted_peak_bytes: 5000,
            peak_rss_bytes: 4096,
            decodes: None,
        };
        let text = table_of(&manifest(), Some(&measured), &Terminal::plain());
        for part in ["codes  ", "graph  ", "1000 B", "4.00 KiB", "1.50 s", "abc"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
