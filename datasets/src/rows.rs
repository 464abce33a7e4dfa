//! Rows of one dimension, in memory, in the element type in which they came.

use std::fmt;
use std::str::FromStr;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// The largest dimension a dataset may have.
pub const MAX_DIM: usize = 65_535;

/// The type of one number of a vector, as files hold it (little-endian).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 16-bit float (IEEE half).
    F16,
    /// 16-bit float with the range of f32 (bfloat16).
    Bf16,
    /// Unsigned byte.
    U8,
    /// Signed byte.
    I8,
}

impl Element {
    /// Every element type.
    pub const ALL: [Element; 5] =
        [Element::F32, Element::F16, Element::Bf16, Element::U8, Element::I8];

    /// Bytes a number takes.
    pub fn size(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::F16 | Element::Bf16 => 2,
            Element::U8 | Element::I8 => 1,
        }
    }

    /// The name used on the command line and on disk.
    pub fn name(self) -> &'static str {
        match self {
            Element::F32 => "f32",
            Element::F16 => "f16",
            Element::Bf16 => "bf16",
            Element::U8 => "u8",
            Element::I8 => "i8",
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Element {
    type Err = String;

    fn from_str(text: &str) -> Result<Element, String> {
        Element::ALL.into_iter().find(|element| element.name() == text).ok_or_else(|| {
            format!("element type {text:?} is unknown; wanted f32, f16, bf16, u8 or i8")
        })
    }
}

/// What is wrong with values that should have been rows.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RowsError {
    /// The dimension is 0 or too large.
    #[error("dimension {found} is out of range; wanted 1 to {MAX_DIM}")]
    Dim {
        /// The dimension given.
        found: usize,
    },
    /// The number of values is no multiple of the dimension.
    #[error("{values} values are no whole number of rows of dimension {dim}")]
    Ragged {
        /// How many values were given.
        values: usize,
        /// The dimension given.
        dim: usize,
    },
    /// A number has no place in an element type.
    #[error("row {row}, column {column}: found {value}; wanted a number that {element} can hold")]
    DoesNotFit {
        /// The row, counted from 0.
        row: usize,
        /// The position in the row, counted from 0.
        column: usize,
        /// The number.
        value: f32,
        /// The requested element type.
        element: Element,
    },
}

/// Numbers of one element type.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 16-bit floats.
    F16(Vec<f16>),
    /// 16-bit floats with the range of f32.
    Bf16(Vec<bf16>),
    /// Unsigned bytes.
    U8(Vec<u8>),
    /// Signed bytes.
    I8(Vec<i8>),
}

impl Values {
    /// `count` zeros of an element type.
    pub fn zeroed(element: Element, count: usize) -> Values {
        match element {
            Element::F32 => Values::F32(vec![0.0; count]),
            Element::F16 => Values::F16(vec![f16::ZERO; count]),
            Element::Bf16 => Values::Bf16(vec![bf16::ZERO; count]),
            Element::U8 => Values::U8(vec![0; count]),
            Element::I8 => Values::I8(vec![0; count]),
        }
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        match self {
            Values::F32(v) => v.len(),
            Values::F16(v) => v.len(),
            Values::Bf16(v) => v.len(),
            Values::U8(v) => v.len(),
            Values::I8(v) => v.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their type.
    pub fn element(&self) -> Element {
        match self {
            Values::F32(_) => Element::F32,
            Values::F16(_) => Element::F16,
            Values::Bf16(_) => Element::Bf16,
            Values::U8(_) => Element::U8,
            Values::I8(_) => Element::I8,
        }
    }

    /// The numbers as bytes in memory order.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Values::F32(v) => bytemuck::cast_slice(v),
            Values::F16(v) => bytemuck::cast_slice(v),
            Values::Bf16(v) => bytemuck::cast_slice(v),
            Values::U8(v) => v,
            Values::I8(v) => bytemuck::cast_slice(v),
        }
    }

    /// The numbers as bytes in memory order, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Values::F32(v) => bytemuck::cast_slice_mut(v),
            Values::F16(v) => bytemuck::cast_slice_mut(v),
            Values::Bf16(v) => bytemuck::cast_slice_mut(v),
            Values::U8(v) => v,
            Values::I8(v) => bytemuck::cast_slice_mut(v),
        }
    }
}

/// Rows in memory, `[n x dim]`, row-major, of one element type.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    dim: usize,
    values: Values,
}

impl Rows {
    /// Rows of dimension `dim` out of `values` (`[n x dim]`, row-major).
    ///
    /// # Errors
    /// A dimension of 0 or above [`MAX_DIM`]; values that are no whole number of rows.
    pub fn new(dim: usize, values: Values) -> Result<Rows, RowsError> {
        if dim == 0 || dim > MAX_DIM {
            return Err(RowsError::Dim { found: dim });
        }
        if !values.len().is_multiple_of(dim) {
            return Err(RowsError::Ragged { values: values.len(), dim });
        }
        Ok(Rows { dim, values })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Numbers in a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The type of the numbers.
    pub fn element(&self) -> Element {
        self.values.element()
    }

    /// All numbers, row-major.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Bytes a row takes.
    pub fn row_bytes(&self) -> usize {
        self.dim * self.element().size()
    }

    /// Row `i`. Panics if `i` is not below `len`.
    pub fn row(&self, i: usize) -> Row<'_> {
        let range = i * self.dim..(i + 1) * self.dim;
        match &self.values {
            Values::F32(v) => Row::F32(&v[range]),
            Values::F16(v) => Row::F16(&v[range]),
            Values::Bf16(v) => Row::Bf16(&v[range]),
            Values::U8(v) => Row::U8(&v[range]),
            Values::I8(v) => Row::I8(&v[range]),
        }
    }

    /// The rows in order.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.len()).map(|i| self.row(i))
    }

    /// The first row whose numbers are all zero: it has no direction, so no cosine either.
    pub fn first_zero(&self) -> Option<usize> {
        self.iter().position(|row| row.is_zero())
    }

    /// Row, column and value of the first number that is NaN or infinite.
    pub fn first_not_finite(&self) -> Option<(usize, usize, f32)> {
        let row = self.iter().position(|row| !row.is_finite())?;
        let mut wide = vec![0.0; self.dim];
        self.row(row).widen_into(&mut wide);
        let column = wide.iter().position(|x| !x.is_finite())?;
        Some((row, column, wide[column]))
    }

    /// The same rows in another element type. Floats become f16 or bf16 by rounding to the nearest;
    /// nothing else may change a number.
    ///
    /// # Errors
    /// The first number that `element` cannot hold: too large, not finite, or for u8 and i8 not
    /// whole.
    pub fn convert(&self, element: Element) -> Result<Rows, RowsError> {
        if element == self.element() {
            return Ok(self.clone());
        }
        let values = match element {
            Element::F32 => Values::F32(self.map_wide(element, Some)?),
            Element::F16 => Values::F16(self.map_wide(element, to_f16)?),
            Element::Bf16 => Values::Bf16(self.map_wide(element, to_bf16)?),
            Element::U8 => Values::U8(self.map_wide(element, |x| {
                (x == x.trunc() && (0.0..=255.0).contains(&x)).then_some(x as u8)
            })?),
            Element::I8 => Values::I8(self.map_wide(element, |x| {
                (x == x.trunc() && (-128.0..=127.0).contains(&x)).then_some(x as i8)
            })?),
        };
        Ok(Rows { dim: self.dim, values })
    }

    /// Every number, widened to f32 (which is exact), then given to `narrow`.
    fn map_wide<T>(
        &self,
        element: Element,
        narrow: impl Fn(f32) -> Option<T>,
    ) -> Result<Vec<T>, RowsError> {
        let mut out = Vec::with_capacity(self.values.len());
        let mut wide = vec![0.0; self.dim];
        for (row, numbers) in self.iter().enumerate() {
            numbers.widen_into(&mut wide);
            for (column, &value) in wide.iter().enumerate() {
                let fits = narrow(value);
                out.push(fits.ok_or(RowsError::DoesNotFit { row, column, value, element })?);
            }
        }
        Ok(out)
    }
}

fn to_f16(x: f32) -> Option<f16> {
    Some(f16::from_f32(x)).filter(|rounded| rounded.is_finite())
}

fn to_bf16(x: f32) -> Option<bf16> {
    Some(bf16::from_f32(x)).filter(|rounded| rounded.is_finite())
}

/// One vector, borrowed, in its element type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Row<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// 16-bit floats.
    F16(&'a [f16]),
    /// 16-bit floats with the range of f32.
    Bf16(&'a [bf16]),
    /// Unsigned bytes.
    U8(&'a [u8]),
    /// Signed bytes.
    I8(&'a [i8]),
}

impl Row<'_> {
    /// Numbers in the row.
    pub fn dim(&self) -> usize {
        match self {
            Row::F32(v) => v.len(),
            Row::F16(v) => v.len(),
            Row::Bf16(v) => v.len(),
            Row::U8(v) => v.len(),
            Row::I8(v) => v.len(),
        }
    }

    /// The type of the numbers.
    pub fn element(&self) -> Element {
        match self {
            Row::F32(_) => Element::F32,
            Row::F16(_) => Element::F16,
            Row::Bf16(_) => Element::Bf16,
            Row::U8(_) => Element::U8,
            Row::I8(_) => Element::I8,
        }
    }

    /// The numbers as bytes in memory order.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Row::F32(v) => bytemuck::cast_slice(v),
            Row::F16(v) => bytemuck::cast_slice(v),
            Row::Bf16(v) => bytemuck::cast_slice(v),
            Row::U8(v) => v,
            Row::I8(v) => bytemuck::cast_slice(v),
        }
    }

    /// Writes the numbers as f32 into `out`, exactly. Panics if the lengths differ.
    pub fn widen_into(&self, out: &mut [f32]) {
        assert_eq!(self.dim(), out.len(), "dimension mismatch");
        match self {
            Row::F32(v) => out.copy_from_slice(v),
            Row::F16(v) => v.convert_to_f32_slice(out),
            Row::Bf16(v) => {
                let widened = v.iter().map(|x| f32::from_bits(u32::from(x.to_bits()) << 16));
                out.iter_mut().zip(widened).for_each(|(to, from)| *to = from);
            }
            Row::U8(v) => out.iter_mut().zip(*v).for_each(|(to, from)| *to = f32::from(*from)),
            Row::I8(v) => out.iter_mut().zip(*v).for_each(|(to, from)| *to = f32::from(*from)),
        }
    }

    /// Whether no number is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        // Without a way out early the loops run on vectors: a bad row is the exception.
        match self {
            Row::F32(v) => v.iter().fold(true, |all, x| all & x.is_finite()),
            Row::F16(v) => v.iter().fold(true, |all, x| all & x.is_finite()),
            Row::Bf16(v) => v.iter().fold(true, |all, x| all & x.is_finite()),
            Row::U8(_) | Row::I8(_) => true,
        }
    }

    /// Whether every number is zero.
    pub fn is_zero(&self) -> bool {
        match self {
            Row::F32(v) => v.iter().all(|x| *x == 0.0),
            Row::F16(v) => v.iter().all(|x| x.to_f32() == 0.0),
            Row::Bf16(v) => v.iter().all(|x| x.to_f32() == 0.0),
            Row::U8(v) => v.iter().all(|x| *x == 0),
            Row::I8(v) => v.iter().all(|x| *x == 0),
        }
    }
}

impl<'a> From<&'a [f32]> for Row<'a> {
    fn from(values: &'a [f32]) -> Row<'a> {
        Row::F32(values)
    }
}

impl<'a> From<&'a Vec<f32>> for Row<'a> {
    fn from(values: &'a Vec<f32>) -> Row<'a> {
        Row::F32(values)
    }
}

impl<'a> From<&'a [u8]> for Row<'a> {
    fn from(values: &'a [u8]) -> Row<'a> {
        Row::U8(values)
    }
}

impl<'a> From<&'a [i8]> for Row<'a> {
    fn from(values: &'a [i8]) -> Row<'a> {
        Row::I8(values)
    }
}

impl<'a> From<&'a [f16]> for Row<'a> {
    fn from(values: &'a [f16]) -> Row<'a> {
        Row::F16(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(dim: usize, numbers: &[f32]) -> Rows {
        Rows::new(dim, Values::F32(numbers.to_vec())).unwrap()
    }

    fn every_byte(element: Element) -> Rows {
        let mut values = Values::zeroed(element, 256);
        values.bytes_mut().copy_from_slice(&(0..=255).collect::<Vec<u8>>());
        Rows::new(16, values).unwrap()
    }

    #[test]
    fn bytes_and_halves_survive_the_way_through_wider_types() {
        for element in [Element::U8, Element::I8] {
            let rows = every_byte(element);
            for wider in [Element::F32, Element::F16, Element::Bf16] {
                let wide = rows.convert(wider).unwrap();
                assert_eq!(wide.element(), wider);
                assert_eq!(wide.convert(element).unwrap(), rows);
            }
        }
        let halves = (0..=u16::MAX).map(f16::from_bits).filter(|x| x.is_finite()).collect();
        let rows = Rows::new(2, Values::F16(halves)).unwrap();
        let back = rows.convert(Element::F32).unwrap().convert(Element::F16).unwrap();
        assert_eq!(back.values().bytes(), rows.values().bytes());
    }

    #[test]
    fn halves_are_rounded_to_the_nearest() {
        let rows = f32s(3, &[0.1, 65_519.0, 1e-9]).convert(Element::F16).unwrap();
        let nearest = [0.1, 65_504.0, 0.0].map(f16::from_f32).to_vec();
        assert_eq!(*rows.values(), Values::F16(nearest));
    }

    #[test]
    fn a_number_that_does_not_fit_is_named() {
        for (value, element) in [
            (65_520.0, Element::F16),
            (f32::NAN, Element::F16),
            (f32::INFINITY, Element::F16),
            (-1.0, Element::U8),
            (256.0, Element::U8),
            (0.5, Element::U8),
            (f32::NAN, Element::U8),
            (-129.0, Element::I8),
            (128.0, Element::I8),
            (-0.5, Element::I8),
        ] {
            let error = f32s(3, &[0.0, 1.0, 2.0, 3.0, value, 5.0]).convert(element).unwrap_err();
            let wanted =
                format!("row 1, column 1: found {value}; wanted a number that {element} can hold");
            assert_eq!(error.to_string(), wanted);
        }
        let negative = Rows::new(1, Values::I8(vec![-1])).unwrap();
        assert!(negative.convert(Element::U8).is_err());
        assert_eq!(*f32s(1, &[-0.0]).convert(Element::U8).unwrap().values(), Values::U8(vec![0]));
    }

    #[test]
    fn the_first_bad_row_is_found() {
        let rows = f32s(2, &[0.0, 1.0, 0.0, -0.0, 0.0, 0.0]);
        assert_eq!(rows.first_zero(), Some(1));
        assert_eq!(rows.first_not_finite(), None);
        let rows = f32s(2, &[0.0, 1.0, 2.0, f32::NEG_INFINITY, f32::INFINITY, 0.0]);
        assert_eq!(rows.first_zero(), None);
        assert_eq!(rows.first_not_finite(), Some((1, 1, f32::NEG_INFINITY)));
    }
}
