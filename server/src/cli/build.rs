//! `foveal build`: vectors in, an index out.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Once;

use clap::Args;
use foveal_datasets::output_file::check_new;
use foveal_datasets::{Element, Lengthened, Metric, Rounded, RowSource, VectorFile};
use foveal_index::{
    BuildError, BuildInput, BuildParams, BuildReport, Job, JsonLines, Keys, PayloadSource,
    Progress, check_rows, free_memory,
};
use serde::Serialize;

use super::exit_code::{Failure, Outcome};
use super::inputs::{BaseArgs, BiasArgs, CastArgs, LearnArgs};
use super::interrupt::Interrupt;
use super::output::{Format, Output};
use super::parquet_base::{ParquetArgs, ParquetBase, ParquetCopies};
use super::progress::Bars;
use super::table::{Table, bytes, grouped, seconds, three_digits};
use super::terminal::Terminal;
use super::{choices, key_file, shell_words, size};

/// Build an index from a file of vectors.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BuildArgs {
    #[arg(long, value_name = "FILE", help = choices::rows_help("Vectors to index: .parquet, or"))]
    base: PathBuf,
    /// What "near" means: squared Euclidean distance, inner product, or angle.
    #[arg(long, value_parser = choices::metric())]
    metric: Metric,
    /// The index to make: a directory that does not exist yet.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Bits a dimension of the codes kept in memory [default: 4; 8 or 32 where a sample shows that
    /// those do not tell near vectors apart]. With a fifth and sixth, searches read fewer full
    /// vectors; two, along the leading axes alone, take the least memory; 32 keep whole vectors.
    #[arg(long, value_parser = choices::bits())]
    bits: Option<u8>,
    /// The most neighbors a vector may have in the graph.
    #[arg(long, value_name = "R", default_value_t = defaults().max_degree)]
    max_degree: u32,
    #[arg(long, value_name = "L", help = list_size_help())]
    list_size: Option<u32>,
    /// Prune slack: larger keeps more long edges.
    #[arg(long, value_name = "A", default_value_t = defaults().alpha)]
    alpha: f32,
    /// Sample queries, to measure which effort reaches which recall; for queries unlike the rows.
    /// With metric ip: sample hidden states, for `foveal decode`.
    #[arg(long, value_name = "FILE")]
    learn: Option<PathBuf>,
    /// A number to add to each logit when decoding: any file of n numbers; metric ip alone.
    #[arg(long, value_name = "FILE")]
    bias: Option<PathBuf>,
    /// Keep full vectors of f32 as 16-bit floats: half the disk and reads; says what is lost.
    #[arg(long, value_name = "f16|bf16", value_parser = choices::half())]
    store: Option<Element>,
    /// Keys of the rows, in order: a one-dimensional .npy of integers.
    #[arg(long, value_name = "FILE.npy", conflicts_with = "first_key")]
    keys: Option<PathBuf>,
    /// Key of the first row; each next row gets the next key.
    #[arg(long, value_name = "N", default_value_t = 0)]
    first_key: u64,
    /// What to return with each row: a JSON object a line, in row order.
    #[arg(long, value_name = "FILE.jsonl")]
    payload: Option<PathBuf>,
    /// Worker threads [default: every core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The most memory the build may use, such as 2GiB or 500MB [default: what is free]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory: Option<u64>,
    /// Seed of every random choice: same input, seed and flags, same bytes.
    #[arg(long, value_name = "S", default_value_t = defaults().seed)]
    seed: u64,
    /// The form of the result.
    #[arg(long, value_enum, default_value = "table", value_name = "table|json")]
    #[arg(hide_possible_values = true)]
    format: Format,
    #[command(flatten)]
    base_args: BaseArgs,
    #[command(flatten)]
    learn_args: LearnArgs,
    #[command(flatten)]
    bias_args: BiasArgs,
    #[command(flatten)]
    parquet_args: ParquetArgs,
    #[command(flatten)]
    cast: CastArgs,
}

const EXAMPLES: &str = "\
Examples:
  foveal build --base sift.fvecs --metric l2 --out sift.index
  foveal build --base texts.npy --metric cosine --out texts.index \\
      --payload texts.jsonl --keys ids.npy --memory 4GiB
  foveal build --base texts.parquet --vector-column embedding --key-column id \\
      --payload-columns title,url --metric cosine --out texts.index
  foveal build --base model.safetensors --tensor lm_head.weight --metric ip \
      --learn states.fbin --out head.index";

/// What the engine takes where nothing is asked for: the same for every metric.
fn defaults() -> BuildParams {
    BuildParams::new(Metric::L2)
}

fn list_size_help() -> String {
    let list_size = defaults().list_size;
    format!("Effort: candidates kept while the graph grows [default: {list_size}, at least R]")
}

/// What `build --format json` prints: a contract, fields in this order.
#[derive(Serialize)]
struct BuildJson<'a> {
    n: u64,
    dim: u32,
    metric: Metric,
    element: Element,
    bits: u8,
    max_degree: u32,
    alpha: f32,
    seed: u64,
    build_seconds: f64,
    predicted_peak_bytes: u64,
    peak_rss_bytes: u64,
    resident_bytes_per_vector: f64,
    disk_bytes: u64,
    format_version: u32,
    digest: &'a str,
    warnings: &'a [String],
}

/// Builds the index and says what was built.
///
/// # Errors
/// Parameters out of range; input that cannot be read or makes no sense; an output that exists
/// or cannot be written; ctrl-c. Nothing stays behind then.
pub(crate) fn run(args: &BuildArgs, terminal: &Terminal) -> anyhow::Result<Outcome> {
    let params = params_of(args);
    params.check()?;
    check_new(&args.out)?;
    let interrupt = Interrupt::catch()?;
    let base = Base::open(args)?;
    check_rows(base.len())?;
    let biases = read_biases(args, base.len())?;
    let learn = open_learn(args)?;
    let read_keys = |path: &PathBuf| key_file::read(path, base.len());
    let key_list = args.keys.as_ref().map(read_keys).transpose()?;
    let payload = args.payload.as_deref().map(JsonLines::open).transpose();
    let mut payload = payload.map_err(BuildError::from)?;
    // The copies take long: whatever else can be refused, was.
    let (base, copies) = base.into_rows(&args.out, &interrupt)?;
    let keys = match key_list.as_deref().or(copies.as_ref().and_then(ParquetCopies::keys)) {
        Some(list) => Keys::List(list),
        None => Keys::From(args.first_key),
    };
    if let Some(copies) = copies.as_ref().filter(|_| payload.is_none()) {
        payload = copies.payload().map_err(BuildError::from)?;
    }
    let base: Box<dyn RowSource> = match biases {
        Some(biases) => Box::new(Lengthened::by_each(Box::new(base), biases)?),
        None => Box::new(base),
    };
    let base = match args.store {
        Some(element) => rounded(base, element, args.seed)?,
        None => base,
    };
    let input = BuildInput {
        base: &*base,
        keys,
        payload: payload.as_ref().map(|payload| payload as &dyn PayloadSource),
        learn: learn.as_deref(),
        bias: args.bias.is_some(),
    };
    let note = memory_note(&input, &params)?;
    let report = build_with_progress(&input, &args.out, &params, &interrupt, Some(&note))?;
    for warning in &report.warnings {
        let _ = writeln!(std::io::stderr(), "foveal: warning: {warning}");
    }
    let mut output = Output::stdout();
    match args.format {
        Format::Json => output.print_json(&json_of(&report))?,
        Format::Table => output.print(&table_of(&report, &args.out, terminal))?,
    }
    Ok(Outcome::Done)
}

/// What the build is expected to take, against what is free.
fn memory_note(input: &BuildInput<'_>, params: &BuildParams) -> anyhow::Result<String> {
    let needed = bytes(foveal_index::predicted_peak_bytes(input, params)?);
    let free = free_memory().map(|free| format!("; {} are free", bytes(free.bytes)));
    Ok(format!("the build needs about {needed} of memory{}", free.unwrap_or_default()))
}

/// The vectors to index, before any is read.
enum Base {
    Flat(VectorFile),
    Parquet(ParquetBase),
}

impl Base {
    fn open(args: &BuildArgs) -> anyhow::Result<Base> {
        let how = args.base_args.read_as(args.cast);
        Ok(match ParquetBase::open(&args.base, &how, &args.parquet_args)? {
            Some(parquet) => Base::Parquet(parquet),
            None => Base::Flat(VectorFile::open_as(&args.base, &how)?),
        })
    }

    fn len(&self) -> usize {
        match self {
            Base::Flat(file) => file.len(),
            Base::Parquet(parquet) => parquet.len(),
        }
    }

    /// A file whose rows can be read in any order, and the copies that it is one of, if it is.
    fn into_rows(
        self,
        out: &Path,
        interrupt: &Interrupt,
    ) -> anyhow::Result<(VectorFile, Option<ParquetCopies>)> {
        match self {
            Base::Flat(file) => Ok((file, None)),
            Base::Parquet(parquet) => {
                let copies = parquet.copy(out, interrupt)?;
                Ok((copies.vectors()?, Some(copies)))
            }
        }
    }
}

/// A number for each of the rows.
fn read_biases(args: &BuildArgs, rows: usize) -> anyhow::Result<Option<Vec<f32>>> {
    let Some(path) = &args.bias else { return Ok(None) };
    if !args.metric.is_product() {
        let message = format!("--bias does not go with --metric {}; wanted ip", args.metric);
        return Err(Failure::usage(message).into());
    }
    let file = VectorFile::open_numbers(path, &args.bias_args.read_as(args.cast))?;
    let found = file.len() * file.dim();
    if found != rows {
        let shown = path.display();
        let message = format!("{shown}: holds {found} numbers; wanted {rows}, one a row");
        return Err(Failure::bad_data(message).into());
    }
    let numbers = file.read(0..file.len())?;
    let mut biases = vec![0.0; found];
    let places = biases.chunks_exact_mut(numbers.dim());
    numbers.iter().zip(places).for_each(|(row, place)| row.widen_into(place));
    Ok(Some(biases))
}

/// The samples, as long as the rows.
fn open_learn(args: &BuildArgs) -> anyhow::Result<Option<Box<dyn RowSource>>> {
    let Some(path) = &args.learn else { return Ok(None) };
    let learn = VectorFile::open_as(path, &args.learn_args.read_as(args.cast))?;
    let learn: Box<dyn RowSource> = Box::new(learn);
    Ok(Some(match &args.bias {
        Some(_) => Box::new(Lengthened::by_ones(learn)?),
        None => learn,
    }))
}

/// The same rows, kept as `element`; says what that changes.
fn rounded(
    base: Box<dyn RowSource>,
    element: Element,
    seed: u64,
) -> anyhow::Result<Box<dyn RowSource>> {
    let told = change_of(&*base, element, seed)?;
    let base = Rounded::to(base, element)?;
    let _ = writeln!(std::io::stderr(), "foveal: kept as {element}: {told}");
    Ok(Box::new(base))
}

/// What rounding changes, over a sample of rows.
fn change_of(base: &dyn RowSource, element: Element, seed: u64) -> anyhow::Result<String> {
    let (_, rows) = base.sample(ROUNDED_SAMPLE, seed)?;
    let rounded = rows.convert(element)?;
    let [mut before, mut after] = [vec![0.0f32; rows.dim()], vec![0.0; rows.dim()]];
    let (mut changed, mut squares) = (0.0f64, 0.0f64);
    for (row, kept) in rows.iter().zip(rounded.iter()) {
        row.widen_into(&mut before);
        kept.widen_into(&mut after);
        for (x, y) in before.iter().zip(&after) {
            changed += (f64::from(*x) - f64::from(*y)).powi(2);
            squares += f64::from(*x).powi(2);
        }
    }
    let sample = grouped(rows.len() as u64);
    if changed == 0.0 {
        return Ok(format!("no number of {sample} rows changes"));
    }
    let share = (changed / squares).sqrt();
    Ok(format!("{sample} rows change by {share:.1e} of their length, root mean square"))
}

/// Rows that tell what rounding changes.
const ROUNDED_SAMPLE: usize = 10_000;

/// Builds with a bar on stderr; ctrl-c ends the build and removes what it made. `note` is said once
/// the input was checked and the work begins.
///
/// # Errors
/// As [`foveal_index::build`].
pub(crate) fn build_with_progress(
    input: &BuildInput<'_>,
    out: &Path,
    params: &BuildParams,
    interrupt: &Interrupt,
    note: Option<&str>,
) -> anyhow::Result<BuildReport> {
    let bars = Bars::start();
    let said = Once::new();
    let show = |progress: Progress| {
        if let Some(note) = note.filter(|_| !progress.stage.starts_with("checking")) {
            said.call_once(|| {
                let _ = writeln!(std::io::stderr(), "foveal: {note}");
            });
        }
        bars.show(progress);
    };
    let job = Job { progress: Some(&show), interrupt: Some(interrupt.flag()) };
    Ok(foveal_index::build(input, out, params, job)?)
}

fn params_of(args: &BuildArgs) -> BuildParams {
    let defaults = BuildParams::new(args.metric);
    BuildParams {
        metric: args.metric,
        bits: args.bits,
        max_degree: args.max_degree,
        // A list shorter than the degree could not fill it.
        list_size: args.list_size.unwrap_or(defaults.list_size.max(args.max_degree)),
        alpha: args.alpha,
        seed: args.seed,
        threads: args.threads.unwrap_or(defaults.threads),
        memory: args.memory,
    }
}

fn json_of(report: &BuildReport) -> BuildJson<'_> {
    let manifest = &report.manifest;
    BuildJson {
        n: manifest.n,
        dim: manifest.dim,
        metric: manifest.metric,
        element: manifest.element,
        bits: manifest.bits,
        max_degree: manifest.max_degree,
        alpha: manifest.alpha,
        seed: manifest.seed,
        build_seconds: report.measured.build_seconds,
        predicted_peak_bytes: report.measured.predicted_peak_bytes,
        peak_rss_bytes: report.measured.peak_rss_bytes,
        resident_bytes_per_vector: per_vector(report.resident_bytes, manifest.n),
        disk_bytes: report.disk_bytes,
        format_version: manifest.format_version,
        digest: &manifest.digest,
        warnings: &report.warnings,
    }
}

fn per_vector(bytes: u64, n: u64) -> f64 {
    bytes as f64 / n.max(1) as f64
}

fn table_of(report: &BuildReport, out: &Path, terminal: &Terminal) -> String {
    let (manifest, measured) = (&report.manifest, &report.measured);
    let mut table = Table::default();
    let (n, dim, element) = (grouped(manifest.n), manifest.dim, manifest.element);
    table.line("vectors", format!("{n} x {dim} {element}, {}", manifest.metric));
    table.line("codes", format!("{} bits a dimension", manifest.bits));
    let (degree, list_size) = (manifest.max_degree, manifest.list_size);
    let alpha = manifest.alpha;
    table.line("graph", format!("{degree} neighbors, list size {list_size}, alpha {alpha}"));
    table.line("payload", if manifest.payload { "yes" } else { "none" });
    table.gap();
    table.line("time", seconds(measured.build_seconds));
    let (peak, predicted) = (measured.peak_rss_bytes, measured.predicted_peak_bytes);
    table.line("peak memory", format!("{} ({} predicted)", bytes(peak), bytes(predicted)));
    let resident = three_digits(per_vector(report.resident_bytes, manifest.n));
    table.line(
        "in memory",
        format!("{resident} B a vector, {} in all", bytes(report.resident_bytes)),
    );
    let disk = three_digits(per_vector(report.disk_bytes, manifest.n));
    table.line("on disk", format!("{disk} B a vector, {} in all", bytes(report.disk_bytes)));
    table.line("digest", manifest.digest.as_str());
    let (title, next) = (terminal.bold("Built"), terminal.bold("Next"));
    let (body, path) = (table.render(terminal), shell_words::quoted(out));
    format!(
        "{title} {path}\n{body}\n{next}\n  foveal search --index {path} --queries FILE --k 10 \
         --show 3\n"
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use foveal_index::{FileEntry, Manifest, Measured};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BuildArgs,
    }

    fn parsed_for(metric: Metric, line: &str) -> BuildParams {
        let fixed = format!("build --base a.fbin --out b --metric {metric}");
        let words = fixed.split(' ').chain(line.split_whitespace());
        params_of(&Line::try_parse_from(words).unwrap().args)
    }

    fn parsed(line: &str) -> BuildParams {
        parsed_for(Metric::Cosine, line)
    }

    fn report() -> BuildReport {
        let file = FileEntry { name: "codes".into(), bytes: 400, xxh3: "00".into() };
        let manifest = Manifest {
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
            files: vec![file],
            digest: "abc".into(),
            checksum: "def".into(),
        };
        let measured = Measured {
            build_seconds: 1.5,
            predicted_peak_bytes: 5000,
            peak_rss_bytes: 4000,
            decodes: None,
        };
        BuildReport {
            manifest,
            measured,
            resident_bytes: 14_450,
            disk_bytes: 90_000,
            repaired: 0,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn flags_reach_the_parameters_and_the_rest_are_defaults() {
        for metric in Metric::ALL {
            assert_eq!(parsed_for(metric, ""), BuildParams::new(metric));
        }
        let params = parsed("--bits 8 --max-degree 128 --alpha 1.1 --seed 7");
        assert_eq!((params.bits, params.max_degree, params.list_size), (Some(8), 128, 128));
        assert_eq!((params.alpha, params.seed), (1.1, 7));
        let params = parsed("--list-size 200 --threads 3 --memory 2GiB");
        assert_eq!((params.list_size, params.threads, params.memory), (200, 3, Some(2 << 30)));
    }

    #[test]
    fn json_has_the_documented_fields_in_order() {
        let text = serde_json::to_string(&json_of(&report())).unwrap();
        let wanted = concat!(
            r#"{"n":100,"dim":8,"metric":"cosine","element":"f16","bits":4,"max_degree":32,"#,
            r#""alpha":1.2,"seed":42,"build_seconds":1.5,"predicted_peak_bytes":5000,"#,
            r#""peak_rss_bytes":4000,"resident_bytes_per_vector":144.5,"disk_bytes":90000,"#,
            r#""format_version":1,"digest":"abc","warnings":[]}"#
        );
        assert_eq!(text, wanted);
        let warned = BuildReport { warnings: vec!["rows are long".into()], ..report() };
        let text = serde_json::to_string(&json_of(&warned)).unwrap();
        assert!(text.ends_with(r#""digest":"abc","warnings":["rows are long"]}"#), "{text}");
    }

    #[test]
    fn the_table_names_predicted_and_actual_memory_and_what_to_try() {
        let text = table_of(&report(), Path::new("my index"), &Terminal::plain());
        assert!(text.contains("3.91 KiB (4.88 KiB predicted)"), "{text}");
        assert!(text.contains("foveal search --index 'my index' --queries"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
