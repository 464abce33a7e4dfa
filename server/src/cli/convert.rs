//! `foveal convert`: vectors or ground truth from one file format into another.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use foveal_datasets::format::{Format, TruthFormat};
use foveal_datasets::output_file::check_new;
use foveal_datasets::{Element, ReadAs, RowSource, RowsError, Truth, VectorFile, VectorWriter};
use foveal_index::Progress;

use super::exit_code::{Failure, Outcome};
use super::interrupt::Interrupt;
use super::output::Output;
use super::progress::Bars;
use super::row_range::RowRange;
use super::table::{counted, grouped};
use super::{choices, shell_words};

/// A format of vectors, or one of ground truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnyFormat {
    /// Of vectors.
    Rows(Format),
    /// Of ground truth.
    Truth(TruthFormat),
}

/// Bytes converted at a time.
const CHUNK_BYTES: usize = 8 << 20;

/// Convert vectors, or a range of their rows, to another file format or element type.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConvertArgs {
    #[arg(long = "in", value_name = "FILE")]
    #[arg(help = choices::rows_help("What to read: truth as .ibin .ivecs, or rows as"))]
    input: PathBuf,
    /// What to write: the extension names the format.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Only these rows: A..B (without B), A.. or ..B.
    #[arg(long, value_name = "A..B")]
    rows: Option<RowRange>,
    /// Element type to write [default: the one of the format; for .npy that of the input]
    #[arg(long = "type", value_name = "T", value_parser = choices::element())]
    element: Option<Element>,
    /// Format of the input where no extension names it, such as fbin or ibin.
    #[arg(long, value_name = "FORMAT", value_parser = choices::any_format())]
    #[arg(hide_possible_values = true)]
    in_format: Option<AnyFormat>,
    /// The tensor to convert, in a .safetensors file or model index.
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  foveal convert --in sift.fvecs --out sift.u8bin
  foveal convert --in texts.npy --out first.f16bin --rows ..100000
  foveal convert --in truth.ibin --out truth.ivecs
  foveal convert --in doubles.npy --out floats.npy

Floats become f32, f16 or bf16, and integers of more than a byte f32, by rounding to the nearest;
a number that the type cannot hold is an error.";

/// Converts chunk by chunk; the output appears when it is complete.
///
/// # Errors
/// Input that cannot be read or makes no sense; a number that the element type cannot hold; an
/// output that exists or cannot be written; ctrl-c. Nothing stays behind then.
pub(crate) fn run(args: &ConvertArgs) -> anyhow::Result<Outcome> {
    check_new(&args.out)?;
    // An hdf5 file holds vectors and truth: what is to be written says which of them is meant.
    let from_truth = match args.in_format {
        Some(format) => matches!(format, AnyFormat::Truth(_)),
        None => holds_truth(&args.input) || matches!(extension(&args.input), "hdf5" | "h5"),
    };
    let done = if from_truth && holds_truth(&args.out) {
        convert_truth(args)?
    } else {
        convert_vectors(args)?
    };
    let out = shell_words::quoted(&args.out);
    Output::stdout().print(&format!("{out}: {done}\n"))?;
    Ok(Outcome::Done)
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|text| text.to_str()).unwrap_or_default()
}

fn holds_truth(path: &Path) -> bool {
    TruthFormat::of(path).is_ok()
}

fn convert_truth(args: &ConvertArgs) -> anyhow::Result<String> {
    if args.rows.is_some() || args.element.is_some() {
        let message = "--rows and --type go with vectors; .ibin and .ivecs hold ground truth";
        return Err(Failure::usage(message).into());
    }
    let format = match args.in_format {
        Some(AnyFormat::Truth(format)) => Some(format),
        _ => None,
    };
    let truth = Truth::read_as(&args.input, format)?;
    truth.write(&args.out)?;
    Ok(format!("{}, k {}", counted(truth.queries() as u64, "query", "queries"), truth.k()))
}

fn convert_vectors(args: &ConvertArgs) -> anyhow::Result<String> {
    let format = match args.in_format {
        Some(AnyFormat::Rows(format)) => Some(format),
        Some(AnyFormat::Truth(_)) => {
            let message = "ground truth becomes .ibin or .ivecs; wanted one of them as --out";
            return Err(Failure::usage(message).into());
        }
        None => None,
    };
    // To convert is to ask for the numbers of another type.
    let how = ReadAs { format, tensor: args.tensor.clone(), cast: true };
    let input = VectorFile::open_as(&args.input, &how)?;
    let range = match args.rows {
        Some(rows) => rows
            .within(input.len())
            .map_err(|what| Failure::usage(format!("{}: {what}", args.input.display())))?,
        None => 0..input.len(),
    };
    let element = args.element.unwrap_or_else(|| element_for(&args.out, input.element()));
    let mut writer = VectorWriter::create(&args.out, element, input.dim())?;
    let interrupt = Interrupt::catch()?;
    let bars = Bars::start();
    let step = (CHUNK_BYTES / (input.dim() * input.element().size())).max(1);
    for first in range.clone().step_by(step) {
        interrupt.check()?;
        let end = range.end.min(first + step);
        let rows = input.read(first..end)?;
        let converted = rows.convert(element).map_err(|error| of_file(error, first));
        let converted = converted.with_context(|| args.input.display().to_string())?;
        writer.append(&converted)?;
        let done = (end - range.start) as u64;
        bars.show(Progress { stage: "convert", done, total: range.len() as u64 });
    }
    writer.finish()?;
    Ok(format!("{} x {} {element}", grouped(range.len() as u64), input.dim()))
}

/// The error of a chunk that starts at row `first`, with its row counted in the file.
fn of_file(error: RowsError, first: usize) -> RowsError {
    match error {
        RowsError::DoesNotFit { row, column, value, element } => {
            RowsError::DoesNotFit { row: first + row, column, value, element }
        }
        other => other,
    }
}

/// The element type to write when none is asked for: the only one of the format, else that of the
/// input. Formats that are unknown here are refused, with their names, by the writer.
fn element_for(out: &Path, input: Element) -> Element {
    Format::of(out).ok().and_then(Format::element).unwrap_or(input)
}

#[cfg(test)]
mod tests {
    use foveal_datasets::{Rows, Values};

    use super::super::exit_code;
    use super::*;

    fn write(path: &Path, values: Vec<f32>) {
        let mut writer = VectorWriter::create(path, Element::F32, 2).unwrap();
        writer.append(&Rows::new(2, Values::F32(values)).unwrap()).unwrap();
        writer.finish().unwrap();
    }

    fn args(input: &Path, out: &Path, rows: Option<&str>) -> ConvertArgs {
        let rows = rows.map(|text| text.parse().unwrap());
        let (input, out) = (input.into(), out.into());
        ConvertArgs { input, out, rows, element: None, in_format: None, tensor: None }
    }

    #[test]
    fn a_range_of_rows_takes_the_type_of_the_format() {
        let dir = tempfile::tempdir().unwrap();
        let [input, out] = ["a.fbin", "b.u8bin"].map(|name| dir.path().join(name));
        write(&input, vec![0.0, 1.0, 2.0, 3.0, 4.0, 255.0]);
        assert_eq!(run(&args(&input, &out, Some("1.."))).unwrap(), Outcome::Done);
        let file = VectorFile::open(&out).unwrap();
        let rows = file.read(0..file.len()).unwrap();
        assert_eq!(rows.values(), &Values::U8(vec![2, 3, 4, 255]));
    }

    #[test]
    fn what_does_not_fit_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let [input, out] = ["a.fbin", "b.u8bin"].map(|name| dir.path().join(name));
        write(&input, vec![0.0, 1.0, 0.5, 3.0]);
        let error = run(&args(&input, &out, None)).unwrap_err();
        assert_eq!(exit_code::of(&error), 65, "{error:#}");
        let line = exit_code::one_line(&error);
        assert!(line.contains("a.fbin: row 1, column 0: found 0.5"), "{line}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the input is there");
        let error = run(&args(&input, &out, Some("1..3"))).unwrap_err();
        assert_eq!(exit_code::of(&error), 2, "{error:#}");
        let error = run(&args(&input, &input, None)).unwrap_err();
        assert_eq!(exit_code::of(&error), 73, "{error:#}");
    }

    #[test]
    fn truth_loses_only_its_distances() {
        let dir = tempfile::tempdir().unwrap();
        let [input, out] = ["a.ibin", "b.ivecs"].map(|name| dir.path().join(name));
        let truth = Truth::new(1, 2, vec![3, -1], Some(vec![0.5, f32::INFINITY])).unwrap();
        truth.write(&input).unwrap();
        run(&args(&input, &out, None)).unwrap();
        assert_eq!(Truth::read(&out).unwrap().keys(0), [3, -1]);
    }
}
