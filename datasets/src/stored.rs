//! The types that numbers have in files, and how those that rows do not have become f32.

use crate::rows::Element;

/// The type of the numbers in a file, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// One that rows have.
    As(Element),
    /// One that becomes f32.
    Wide(Wide),
}

/// A type of which f32 holds some numbers exactly, and others not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wide {
    F64,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
}

/// A number that cannot become f32 under the conversion chosen.
pub(crate) struct Inexact {
    /// Its position among the numbers given.
    pub(crate) at: usize,
    /// The number, in words.
    pub(crate) found: String,
    /// Whether rounding would do.
    pub(crate) rounds: bool,
}

impl Stored {
    /// The type that rows have.
    pub(crate) fn element(self) -> Element {
        match self {
            Stored::As(element) => element,
            Stored::Wide(_) => Element::F32,
        }
    }

    /// Bytes a number takes.
    pub(crate) fn size(self) -> usize {
        match self {
            Stored::As(element) => element.size(),
            Stored::Wide(Wide::I16 | Wide::U16) => 2,
            Stored::Wide(Wide::I32 | Wide::U32) => 4,
            Stored::Wide(Wide::F64 | Wide::I64 | Wide::U64) => 8,
        }
    }

    /// The name of the type.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stored::As(element) => element.name(),
            Stored::Wide(wide) => wide.name(),
        }
    }
}

impl Wide {
    fn name(self) -> &'static str {
        match self {
            Wide::F64 => "f64",
            Wide::I16 => "i16",
            Wide::U16 => "u16",
            Wide::I32 => "i32",
            Wide::U32 => "u32",
            Wide::I64 => "i64",
            Wide::U64 => "u64",
        }
    }

    /// Writes the numbers of `bytes` into `out` as the bytes of f32; numbers that f32 does not hold
    /// exactly only if `cast`. NaN and infinity stay what they are.
    ///
    /// # Errors
    /// The first number that stays out.
    pub(crate) fn narrow(self, bytes: &[u8], out: &mut [u8], cast: bool) -> Result<(), Inexact> {
        match self {
            Wide::F64 => each(bytes, out, |word| float(f64::from_le_bytes(word), cast)),
            Wide::I16 => each(bytes, out, |word| whole(i16::from_le_bytes(word), cast)),
            Wide::U16 => each(bytes, out, |word| whole(u16::from_le_bytes(word), cast)),
            Wide::I32 => each(bytes, out, |word| whole(i32::from_le_bytes(word), cast)),
            Wide::U32 => each(bytes, out, |word| whole(u32::from_le_bytes(word), cast)),
            Wide::I64 => each(bytes, out, |word| whole(i64::from_le_bytes(word), cast)),
            Wide::U64 => each(bytes, out, |word| whole(u64::from_le_bytes(word), cast)),
        }
    }
}

/// An f32, or the text of a number that f32 cannot hold and whether rounding would do.
type Narrowed = Result<f32, (String, bool)>;

fn each<const N: usize>(
    bytes: &[u8],
    out: &mut [u8],
    narrow: impl Fn([u8; N]) -> Narrowed,
) -> Result<(), Inexact> {
    for (at, (word, out)) in bytes.as_chunks::<N>().0.iter().zip(out.as_chunks_mut().0).enumerate()
    {
        let narrow = narrow(*word).map_err(|(found, rounds)| Inexact { at, found, rounds })?;
        *out = narrow.to_le_bytes();
    }
    Ok(())
}

fn float(wide: f64, cast: bool) -> Narrowed {
    let narrow = wide as f32;
    let passes = wide.is_finite() && narrow.is_infinite();
    if !passes && (cast || f64::from(narrow) == wide || wide.is_nan()) {
        return Ok(narrow);
    }
    Err((wide.to_string(), !passes))
}

fn whole(wide: impl Into<i128>, cast: bool) -> Narrowed {
    let wide = wide.into();
    let narrow = wide as f32;
    if cast || narrow as i128 == wide { Ok(narrow) } else { Err((wide.to_string(), true)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrow(wide: Wide, bytes: &[u8], cast: bool) -> Result<Vec<f32>, (usize, String, bool)> {
        let mut out = vec![0; bytes.len() / Stored::Wide(wide).size() * 4];
        let done = wide.narrow(bytes, &mut out, cast);
        done.map_err(|Inexact { at, found, rounds }| (at, found, rounds))?;
        Ok(out.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
    }

    fn bytes(numbers: &[f64]) -> Vec<u8> {
        numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    #[test]
    fn exact_numbers_pass_and_others_only_when_asked_for() {
        let exact = bytes(&[0.5, -2.0, f64::INFINITY]);
        assert_eq!(narrow(Wide::F64, &exact, false), Ok(vec![0.5, -2.0, f32::INFINITY]));
        assert!(narrow(Wide::F64, &bytes(&[f64::NAN]), false).unwrap()[0].is_nan());
        let third = bytes(&[1.0, 1.0 / 3.0]);
        let refused = Err((1, "0.3333333333333333".into(), true));
        assert_eq!(narrow(Wide::F64, &third, false), refused);
        assert_eq!(narrow(Wide::F64, &third, true), Ok(vec![1.0, 1.0 / 3.0]));
        // Too large for f32, whether it may be rounded or not.
        for cast in [false, true] {
            let large = narrow(Wide::F64, &bytes(&[1e39]), cast).unwrap_err();
            assert_eq!((large.0, large.2), (0, false));
        }
    }

    #[test]
    fn whole_numbers_of_every_width_are_read() {
        assert_eq!(narrow(Wide::I16, &[0xff, 0xff, 7, 0], false), Ok(vec![-1.0, 7.0]));
        assert_eq!(narrow(Wide::U16, &[0xff, 0xff], false), Ok(vec![65535.0]));
        assert_eq!(narrow(Wide::I32, &(-5_i32).to_le_bytes(), false), Ok(vec![-5.0]));
        let odd = (1_u32 << 24) + 1;
        let refused = Err((0, odd.to_string(), true));
        assert_eq!(narrow(Wide::U32, &odd.to_le_bytes(), false), refused);
        assert_eq!(narrow(Wide::U32, &odd.to_le_bytes(), true), Ok(vec![16_777_216.0]));
        assert_eq!(narrow(Wide::I64, &i64::MIN.to_le_bytes(), false), Ok(vec![-(2f32.powi(63))]));
        assert!(narrow(Wide::U64, &u64::MAX.to_le_bytes(), false).is_err());
    }
}
