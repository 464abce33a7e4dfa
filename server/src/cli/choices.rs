//! Arguments that are one of a few names: listed in help texts and completed by shells.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use foveal_datasets::{Element, Metric};
use foveal_index::Io;

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

/// Bits a dimension that codes may have.
pub(crate) fn bits() -> impl TypedValueParser<Value = u8> {
    PossibleValuesParser::new(["4", "8"]).try_map(|digits| digits.parse::<u8>())
}

/// How full vectors are read.
pub(crate) fn io() -> impl TypedValueParser<Value = Io> {
    let names = ["auto", "memory", "mapped", "pread", "uring"];
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Io>())
}
