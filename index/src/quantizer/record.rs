//! How a code lies in memory: the one list of record layouts.

use foveal_datasets::{Element, Metric};

use super::axes::lines_of;
use super::{is_byte, last_line_bytes};
use crate::code_width::CodeWidth;
use crate::kernel::LINE;

/// A layout of records; see the table in the module of quantizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// `borrowed`: the factors take the lowest bit of some dimensions.
    Packed4 {
        borrowed: bool,
    },
    Packed2,
    Planar,
    Bytes,
    Float,
}

impl Record {
    /// The layout of codes of rows of `dim` numbers.
    pub(crate) fn of(width: CodeWidth, (metric, element): (Metric, Element), dim: usize) -> Record {
        match width {
            CodeWidth::Whole => Record::Float,
            CodeWidth::Eight if is_byte(element) && metric.is_of_differences() => Record::Bytes,
            CodeWidth::Eight => Record::Planar,
            CodeWidth::Two => Record::Packed2,
            CodeWidth::Four | CodeWidth::Five | CodeWidth::Six => {
                Record::Packed4 { borrowed: last_line_bytes(dim, 2) + 4 > LINE }
            }
        }
    }

    /// Bytes of a record of `dims` numbers: whole cache lines. At two bits those are the leading
    /// axes, which may be fewer than the numbers of a row.
    pub(crate) fn stride(self, dims: usize) -> usize {
        match self {
            Record::Packed4 { .. } => dims.div_ceil(2 * LINE) * LINE,
            Record::Packed2 => lines_of(dims) * LINE,
            Record::Planar => (dims + 8).next_multiple_of(LINE),
            Record::Bytes => dims.next_multiple_of(LINE),
            Record::Float => (dims * size_of::<f32>()).next_multiple_of(LINE),
        }
    }
}
