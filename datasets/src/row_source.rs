//! Rows from anywhere: a file, memory, other rows with something changed.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::Range;
use std::path::Path;

use crate::error::FileError;
use crate::rows::{Element, MAX_DIM, Rows, RowsError, Values};
use crate::seeded::Seeded;

/// Vectors that are read by row number: `[len x dim]` numbers of one element type.
///
/// Any number of threads may read at once. The same row is the same whenever it is read; a source
/// that cannot promise that, such as a file that somebody writes to, is noticed by those who read
/// it twice.
pub trait RowSource: Debug + Send + Sync {
    /// What messages call the rows: the path of a file.
    fn path(&self) -> &Path;

    /// How many rows there are.
    fn len(&self) -> usize;

    /// Whether there are no rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers in a row; 1 to [`MAX_DIM`].
    fn dim(&self) -> usize;

    /// The type of the numbers.
    fn element(&self) -> Element;

    /// Reads `rows` in order, in their element type.
    ///
    /// # Errors
    /// Rows that the source does not have; NaN or infinity; what the source itself is refused.
    fn read(&self, rows: Range<usize>) -> Result<Rows, FileError>;

    /// Reads single rows, in the order of `rows`.
    ///
    /// # Errors
    /// As [`read`](RowSource::read).
    fn read_each(&self, rows: &[usize]) -> Result<Rows, FileError> {
        let row_bytes = self.dim() * self.element().size();
        let mut values = Values::zeroed(self.element(), rows.len() * self.dim());
        for (&row, out) in rows.iter().zip(values.bytes_mut().chunks_exact_mut(row_bytes)) {
            out.copy_from_slice(self.read(row..row + 1)?.values().bytes());
        }
        Ok(Rows::new(self.dim(), values).expect("whole rows"))
    }

    /// `count` distinct rows, every set of them equally likely, and their ascending row numbers.
    /// The same seed gives the same rows. All rows if there are no more than `count`.
    ///
    /// # Errors
    /// As [`read`](RowSource::read).
    fn sample(&self, count: usize, seed: u64) -> Result<(Vec<usize>, Rows), FileError> {
        if count >= self.len() {
            return Ok(((0..self.len()).collect(), self.read(0..self.len())?));
        }
        let picked = distinct(self.len(), count, seed);
        let rows = self.read_each(&picked)?;
        Ok((picked, rows))
    }
}

/// All rows in order, at most `rows_per_chunk` at a time, each time with the number of the first.
/// Nothing is read ahead.
///
/// # Panics
/// If `rows_per_chunk` is 0.
pub fn chunks(
    source: &dyn RowSource,
    rows_per_chunk: usize,
) -> impl Iterator<Item = Result<(usize, Rows), FileError>> + '_ {
    assert!(rows_per_chunk > 0, "a chunk must have rows");
    (0..source.len()).step_by(rows_per_chunk).map(move |first| {
        let end = first.saturating_add(rows_per_chunk).min(source.len());
        Ok((first, source.read(first..end)?))
    })
}

/// `count` distinct numbers below `len`, ascending (Floyd's algorithm: no list of all numbers).
fn distinct(len: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut seeded = Seeded::new(seed);
    let mut picked = BTreeSet::new();
    for last in len - count..len {
        let pick = seeded.below(last as u64 + 1) as usize;
        if !picked.insert(pick) {
            picked.insert(last);
        }
    }
    picked.into_iter().collect()
}

/// Refuses rows that a source does not have: for whoever implements one.
///
/// # Errors
/// [`FileError::NoSuchRows`].
pub fn check_range(source: &dyn RowSource, rows: &Range<usize>) -> Result<(), FileError> {
    if rows.start <= rows.end && rows.end <= source.len() {
        return Ok(());
    }
    let (path, requested, rows) = (source.path().into(), rows.clone(), source.len());
    Err(FileError::NoSuchRows { path, requested, rows })
}

/// Refuses NaN and infinity. `row_of` gives the number of a row in the source.
pub(crate) fn check_finite(
    rows: &Rows,
    path: &Path,
    row_of: impl Fn(usize) -> usize,
) -> Result<(), FileError> {
    let Some((row, column, value)) = rows.first_not_finite() else { return Ok(()) };
    Err(FileError::NotFinite { path: path.into(), row: row_of(row), column, value })
}

/// Rows in memory.
impl RowSource for Rows {
    fn path(&self) -> &Path {
        Path::new("rows in memory")
    }

    fn len(&self) -> usize {
        Rows::len(self)
    }

    fn dim(&self) -> usize {
        Rows::dim(self)
    }

    fn element(&self) -> Element {
        Rows::element(self)
    }

    fn read(&self, rows: Range<usize>) -> Result<Rows, FileError> {
        check_range(self, &rows)?;
        let mut values = Values::zeroed(Rows::element(self), rows.len() * Rows::dim(self));
        let bytes = rows.start * self.row_bytes()..rows.end * self.row_bytes();
        values.bytes_mut().copy_from_slice(&self.values().bytes()[bytes]);
        let some = Rows::new(Rows::dim(self), values).expect("whole rows");
        check_finite(&some, RowSource::path(self), |row| rows.start + row)?;
        Ok(some)
    }
}

/// Rows with one number more each, as f32: the bias of a token, or the 1 that meets it.
#[derive(Debug)]
pub struct Lengthened<'a> {
    rows: Box<dyn RowSource + 'a>,
    last: Last,
}

/// The numbers behind those of rows.
#[derive(Debug)]
enum Last {
    /// One for each row.
    Each(Vec<f32>),
    /// The same for all.
    Same(f32),
}

impl<'a> Lengthened<'a> {
    /// The same rows, `numbers[i]` behind row i.
    ///
    /// # Errors
    /// Another number of numbers than rows; the largest dimension is taken.
    pub fn by_each(
        rows: Box<dyn RowSource + 'a>,
        numbers: Vec<f32>,
    ) -> Result<Lengthened<'a>, FileError> {
        if numbers.len() != rows.len() {
            let found = format!("{} rows", rows.len());
            let wanted = format!("{}, one for each number to stand behind them", numbers.len());
            return Err(FileError::Content { path: rows.path().into(), found, wanted });
        }
        Lengthened::by(rows, Last::Each(numbers))
    }

    /// The same rows, each with a 1 behind it.
    ///
    /// # Errors
    /// The largest dimension is taken.
    pub fn by_ones(rows: Box<dyn RowSource + 'a>) -> Result<Lengthened<'a>, FileError> {
        Lengthened::by(rows, Last::Same(1.0))
    }

    fn by(rows: Box<dyn RowSource + 'a>, last: Last) -> Result<Lengthened<'a>, FileError> {
        if rows.dim() == MAX_DIM {
            return Err(FileError::dim(rows.path(), 0, MAX_DIM + 1));
        }
        Ok(Lengthened { rows, last })
    }

    /// `row_of` gives the number of a row in the source.
    fn lengthen(&self, rows: &Rows, row_of: impl Fn(usize) -> usize) -> Result<Rows, FileError> {
        let mut numbers = vec![0.0; rows.len() * self.dim()];
        let places = numbers.chunks_exact_mut(self.dim());
        for (i, (row, place)) in rows.iter().zip(places).enumerate() {
            let (numbers, behind) = place.split_at_mut(row.dim());
            row.widen_into(numbers);
            behind[0] = match &self.last {
                Last::Each(numbers) => numbers[row_of(i)],
                Last::Same(number) => *number,
            };
        }
        let longer = Rows::new(self.dim(), Values::F32(numbers)).expect("whole rows");
        check_finite(&longer, self.path(), row_of)?;
        Ok(longer)
    }
}

impl RowSource for Lengthened<'_> {
    fn path(&self) -> &Path {
        self.rows.path()
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn dim(&self) -> usize {
        self.rows.dim() + 1
    }

    fn element(&self) -> Element {
        Element::F32
    }

    fn read(&self, rows: Range<usize>) -> Result<Rows, FileError> {
        let first = rows.start;
        self.lengthen(&self.rows.read(rows)?, |row| first + row)
    }

    fn read_each(&self, rows: &[usize]) -> Result<Rows, FileError> {
        self.lengthen(&self.rows.read_each(rows)?, |row| rows[row])
    }
}

/// Rows of f32, rounded to 16-bit floats.
#[derive(Debug)]
pub struct Rounded<'a> {
    rows: Box<dyn RowSource + 'a>,
    element: Element,
}

impl<'a> Rounded<'a> {
    /// The same rows with numbers of another type: f32 become f16 or bf16 by rounding.
    ///
    /// # Errors
    /// Numbers of another type than f32; a target other than f32, f16 and bf16.
    pub fn to(rows: Box<dyn RowSource + 'a>, element: Element) -> Result<Rounded<'a>, FileError> {
        let is_float = matches!(element, Element::F32 | Element::F16 | Element::Bf16);
        if !is_float || rows.element() != Element::F32 && rows.element() != element {
            let found = rows.element().to_string();
            let wanted = format!("f32, to be kept as {element}");
            return Err(FileError::Content { path: rows.path().into(), found, wanted });
        }
        Ok(Rounded { rows, element })
    }

    /// `row_of` gives the number of a row in the source.
    fn round(&self, rows: &Rows, row_of: impl Fn(usize) -> usize) -> Result<Rows, FileError> {
        rows.convert(self.element).map_err(|error| match error {
            RowsError::DoesNotFit { row, column, value, .. } => {
                let (path, row) = (self.path().into(), row_of(row));
                FileError::NotFinite { path, row, column, value }
            }
            _ => unreachable!("a conversion fails by a number that does not fit alone"),
        })
    }
}

impl RowSource for Rounded<'_> {
    fn path(&self) -> &Path {
        self.rows.path()
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn dim(&self) -> usize {
        self.rows.dim()
    }

    fn element(&self) -> Element {
        self.element
    }

    fn read(&self, rows: Range<usize>) -> Result<Rows, FileError> {
        let first = rows.start;
        self.round(&self.rows.read(rows)?, |row| first + row)
    }

    fn read_each(&self, rows: &[usize]) -> Result<Rows, FileError> {
        self.round(&self.rows.read_each(rows)?, |row| rows[row])
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    fn rows(numbers: Vec<f32>) -> Rows {
        Rows::new(2, Values::F32(numbers)).unwrap()
    }

    fn boxed(numbers: Vec<f32>) -> Box<dyn RowSource> {
        Box::new(rows(numbers))
    }

    #[test]
    fn every_row_is_as_likely_to_be_sampled() {
        let mut times = [0; 10];
        for seed in 0..3_000 {
            distinct(10, 3, seed).into_iter().for_each(|row| times[row] += 1);
        }
        // 900 times each, deviation 25.
        assert!(times.iter().all(|count| (775..1025).contains(count)), "{times:?}");
    }

    #[test]
    fn rows_in_memory_are_read_by_range_and_one_by_one() {
        let source = rows(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let read = source.read(1..3).unwrap();
        assert_eq!(read.values(), &Values::F32(vec![3.0, 4.0, 5.0, 6.0]));
        let each = source.read_each(&[2, 0, 2]).unwrap();
        assert_eq!(each.values(), &Values::F32(vec![5.0, 6.0, 1.0, 2.0, 5.0, 6.0]));
        let all: Vec<usize> = chunks(&source, 2).map(|chunk| chunk.unwrap().0).collect();
        assert_eq!(all, [0, 2]);
        assert_eq!(source.sample(9, 1).unwrap(), (vec![0, 1, 2], source.clone()));
        let beyond = source.read(2..4).unwrap_err().to_string();
        assert!(beyond.contains("rows in memory") && beyond.contains('3'), "{beyond}");
        let odd = rows(vec![1.0, 2.0, 3.0, f32::NAN]);
        assert!(odd.read(0..1).is_ok());
        let refused = [odd.read(0..2), odd.read_each(&[1])];
        for refused in refused {
            let said = refused.unwrap_err().to_string();
            assert!(said.contains("row 1") && said.contains("NaN"), "{said}");
        }
    }

    #[test]
    fn rows_are_rounded_and_lengthened_as_they_are_read() {
        let numbers = vec![1.0, 2.0, 3.0, 1.0 + 1.0 / 512.0];
        let open = || boxed(numbers.clone());
        let rounded = Rounded::to(open(), Element::Bf16).unwrap();
        let wanted = [1.0, 2.0, 3.0, 1.0].map(bf16::from_f32);
        assert_eq!(rounded.read(0..2).unwrap().values(), &Values::Bf16(wanted.into()));
        let longer = Lengthened::by_each(open(), vec![7.0, 8.0]).unwrap();
        assert_eq!((longer.dim(), longer.len()), (3, 2));
        let wanted = vec![3.0, 1.0 + 1.0 / 512.0, 8.0];
        assert_eq!(longer.read(1..2).unwrap().values(), &Values::F32(wanted.clone()));
        assert_eq!(longer.read_each(&[1]).unwrap().values(), &Values::F32(wanted));
        assert_eq!(longer.sample(2, 1).unwrap().1, longer.read(0..2).unwrap());
        let ones = Lengthened::by_ones(open()).unwrap();
        assert_eq!(ones.read(0..1).unwrap().values(), &Values::F32(vec![1.0, 2.0, 1.0]));
        assert!(Lengthened::by_each(open(), vec![1.0]).is_err());
        assert!(Rounded::to(open(), Element::U8).is_err());
        let both = Rounded::to(Box::new(ones), Element::F16).unwrap();
        assert_eq!((both.dim(), both.element()), (3, Element::F16));
    }

    #[test]
    fn numbers_that_a_view_cannot_hold_are_named() {
        let long = Rounded::to(boxed(vec![1.0, 2.0, 3.0, 1e38]), Element::F16).unwrap();
        let infinite = Lengthened::by_each(boxed(vec![0.0; 4]), vec![0.0, f32::INFINITY]).unwrap();
        for (read, column) in [
            (long.read(1..2), "column 1"),
            (long.read_each(&[0, 1]), "column 1"),
            (infinite.read(1..2), "column 2"),
            (infinite.read_each(&[1]), "column 2"),
        ] {
            let said = read.unwrap_err().to_string();
            assert!(said.contains("row 1") && said.contains(column), "{said}");
        }
    }
}
