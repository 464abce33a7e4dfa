//! Arguments that are one of a few names, listed in help texts and completed by shells, and numbers
//! of a range.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use foveal_datasets::format::{Format, TruthFormat};
use foveal_datasets::{Element, Metric};
use foveal_index::{CodeWidth, DecodeMode, Io, LogZMode, MAX_THREADS};

use super::convert::AnyFormat;

/// A metric by its name.
pub(crate) fn metric() -> impl TypedValueParser<Value = Metric> {
    let names = Metric::ALL.map(Metric::name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Metric>())
}

/// An element type by its name.
pub(crate) fn element() -> impl TypedValueParser<Value = Element> {
    let names = Element::ALL.map(Element::name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Element>())
}

/// A format of vectors by its name.
pub(crate) fn format() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::names())
        .try_map(|name| Format::named(&name).ok_or("one of the names listed"))
}

/// A format of ground truth by its name.
pub(crate) fn truth_format() -> impl TypedValueParser<Value = TruthFormat> {
    PossibleValuesParser::new(TruthFormat::names())
        .try_map(|name| TruthFormat::named(&name).ok_or("one of the names listed"))
}

/// A format of vectors or of ground truth by its name.
pub(crate) fn any_format() -> impl TypedValueParser<Value = AnyFormat> {
    let names = Format::names().into_iter().chain(TruthFormat::names());
    PossibleValuesParser::new(names).try_map(|name| {
        let rows = Format::named(&name).map(AnyFormat::Rows);
        let format = rows.or_else(|| TruthFormat::named(&name).map(AnyFormat::Truth));
        format.ok_or("one of the names listed")
    })
}

/// A 16-bit float by its name.
pub(crate) fn half() -> impl TypedValueParser<Value = Element> {
    let names = [Element::F16, Element::Bf16].map(Element::name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Element>())
}

/// The help of an argument for a file of rows: what it is for, and the extensions there are.
pub(crate) fn rows_help(what: &str) -> String {
    let names: Vec<String> = Format::names_by_row().map(|name| format!(".{name}")).collect();
    format!("{what}: {}; .hdf5 if compiled in", names.join(" "))
}

/// Bits a dimension that codes may have.
pub(crate) fn bits() -> impl TypedValueParser<Value = u8> {
    PossibleValuesParser::new(CodeWidth::ALL.map(CodeWidth::name))
        .try_map(|digits| digits.parse::<u8>())
}

/// How full vectors are read.
pub(crate) fn io() -> impl TypedValueParser<Value = Io> {
    let names = ["auto", "memory", "mapped", "pread", "uring"];
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Io>())
}

/// How candidates for a decode are found.
pub(crate) fn decode_mode() -> impl TypedValueParser<Value = DecodeMode> {
    let modes = [DecodeMode::Auto, DecodeMode::Scan, DecodeMode::Graph, DecodeMode::Exact];
    let of = move |name: String| modes.into_iter().find(|mode| mode.name() == name);
    PossibleValuesParser::new(modes.map(DecodeMode::name))
        .try_map(move |name| of(name).ok_or("one of the names listed"))
}

/// What is told of log Z.
pub(crate) fn log_z() -> impl TypedValueParser<Value = LogZMode> {
    let modes = [LogZMode::Off, LogZMode::Interval, LogZMode::Exact];
    let of = move |name: String| modes.into_iter().find(|mode| mode.name() == name);
    PossibleValuesParser::new(modes.map(LogZMode::name))
        .try_map(move |name| of(name).ok_or("one of the names listed"))
}

/// A share: a number from 0 to 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err("wanted 0 to 1".into()) }
}

/// How many threads, or queries in flight on one: at least 1 and at most [`MAX_THREADS`].
pub(crate) fn count(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| format!("{text:?} is no whole number"))?;
    let range = 1..=MAX_THREADS;
    if range.contains(&number) { Ok(number) } else { Err(format!("wanted 1 to {MAX_THREADS}")) }
}
