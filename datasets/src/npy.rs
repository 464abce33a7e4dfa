//! The header of a NumPy file: a magic, a version, and a Python dict in words.
//!
//! ```text
//! 0   \x93NUMPY            magic
//! 6   major, minor         1.0, 2.0 or 3.0
//! 8   length of the dict   u16 in version 1, u32 in versions 2 and 3, little-endian
//! 10  {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }      at 12 in versions 2 and 3
//! ```

use crate::error::FileError;
use crate::input_file::InputFile;
use crate::rows::Element;
use crate::stored::{Stored, Wide};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// The bytes of the header that [`header_of`] makes, whatever the shape.
pub(crate) const HEADER_BYTES: usize = 128;

/// No header for two dimensions is longer; a larger length is damage, not a reason to allocate.
const MAX_DICT_BYTES: u64 = 65_535;

const WANTED_TYPE: &str =
    "f2, f4, f8, or integers of 1 to 8 bytes, little-endian: save a.astype('<f4')";

/// What a header says about an array in C order.
#[derive(Debug, PartialEq)]
pub(crate) struct Header {
    pub(crate) stored: Stored,
    pub(crate) shape: Vec<u64>,
    /// Where the numbers start.
    pub(crate) data_offset: u64,
}

/// Reads the header of an open file. Its counts are not yet compared with the file's length.
pub(crate) fn read_header(input: &InputFile) -> Result<Header, FileError> {
    let wrong = |offset: u64, found: String, wanted: &str| FileError::Field {
        path: input.path().into(),
        offset,
        found,
        wanted: wanted.into(),
    };
    let head: [u8; 10] = input.head()?;
    if head[..6] != MAGIC[..] {
        return Err(wrong(0, "no NumPy magic".into(), "\\x93NUMPY"));
    }
    let (dict_offset, dict_bytes) = match (head[6], head[7]) {
        (1, 0) => (10, u64::from(u16::from_le_bytes([head[8], head[9]]))),
        (2 | 3, 0) => {
            let head: [u8; 12] = input.head()?;
            (12, u64::from(u32::from_le_bytes([head[8], head[9], head[10], head[11]])))
        }
        (major, minor) => {
            let found = format!("NumPy format version {major}.{minor}");
            return Err(wrong(6, found, "1.0, 2.0 or 3.0"));
        }
    };
    let longest = MAX_DICT_BYTES.min(input.len() - dict_offset);
    if dict_bytes > longest {
        let found = format!("a header of {dict_bytes} bytes");
        return Err(wrong(8, found, &format!("at most {longest} bytes")));
    }
    let mut dict = vec![0; dict_bytes as usize];
    input.read_at(dict_offset, &mut dict)?;
    let Some(dict) = std::str::from_utf8(&dict).ok().and_then(Dict::parse) else {
        let wanted = "a dict of 'descr', 'fortran_order' and 'shape'";
        return Err(wrong(dict_offset, "a header that cannot be read".into(), wanted));
    };
    let stored = dict.meaning().map_err(|(found, wanted)| wrong(dict_offset, found, wanted))?;
    Ok(Header { stored, shape: dict.shape, data_offset: dict_offset + dict_bytes })
}

/// The header of version 1.0 for `[rows x dim]` in C order; always [`HEADER_BYTES`] long.
pub(crate) fn header_of(element: Element, rows: u64, dim: usize) -> [u8; HEADER_BYTES] {
    let descr = match element {
        Element::F32 => "<f4",
        Element::F16 => "<f2",
        Element::Bf16 => unreachable!("NumPy has no such type: a writer is refused"),
        Element::U8 => "|u1",
        Element::I8 => "|i1",
    };
    let dict =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let mut header = [b' '; HEADER_BYTES];
    header[..6].copy_from_slice(MAGIC);
    header[6..8].copy_from_slice(&[1, 0]);
    header[8..10].copy_from_slice(&(HEADER_BYTES as u16 - 10).to_le_bytes());
    header[10..10 + dict.len()].copy_from_slice(dict.as_bytes());
    header[HEADER_BYTES - 1] = b'\n';
    header
}

/// The three entries of the dict, as written.
struct Dict<'a> {
    descr: &'a str,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl<'a> Dict<'a> {
    /// Reads exactly the three entries, once each, in any order; `None` for any other text.
    fn parse(text: &'a str) -> Option<Dict<'a>> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        let mut words = Words { rest: text };
        words.symbol('{')?;
        while words.symbol('}').is_none() {
            let key = words.string()?;
            words.symbol(':')?;
            let repeated = match key {
                "descr" => descr.replace(words.string_or_list()?).is_some(),
                "fortran_order" => fortran_order.replace(words.boolean()?).is_some(),
                "shape" => shape.replace(words.tuple()?).is_some(),
                _ => return None,
            };
            if repeated {
                return None;
            }
            if words.symbol(',').is_none() {
                words.symbol('}')?;
                break;
            }
        }
        if !words.rest.trim().is_empty() {
            return None;
        }
        Some(Dict { descr: descr?, fortran_order: fortran_order?, shape: shape? })
    }

    /// The type of the numbers; or what was found and what is wanted.
    fn meaning(&self) -> Result<Stored, (String, &'static str)> {
        if self.fortran_order {
            return Err(("Fortran order".into(), "C order (numpy.ascontiguousarray)"));
        }
        // Bytes have no order: whichever is named will do.
        let (order, kind) = match self.descr.split_at_checked(1) {
            Some((order @ ("<" | ">" | "=" | "|"), kind)) => (order, kind),
            _ => ("|", self.descr),
        };
        let stored = match kind {
            "u1" | "b1" => Some(Stored::As(Element::U8)),
            "i1" => Some(Stored::As(Element::I8)),
            _ if order != "<" => None,
            "f4" => Some(Stored::As(Element::F32)),
            "f2" => Some(Stored::As(Element::F16)),
            "f8" => Some(Stored::Wide(Wide::F64)),
            "i2" => Some(Stored::Wide(Wide::I16)),
            "u2" => Some(Stored::Wide(Wide::U16)),
            "i4" => Some(Stored::Wide(Wide::I32)),
            "u4" => Some(Stored::Wide(Wide::U32)),
            "i8" => Some(Stored::Wide(Wide::I64)),
            "u8" => Some(Stored::Wide(Wide::U64)),
            _ => None,
        };
        stored.ok_or_else(|| (format!("element type '{}'", self.descr), WANTED_TYPE))
    }
}

/// The words of a Python literal, taken off the front; `None` leaves the rest undefined.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn symbol(&mut self, symbol: char) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(symbol)?;
        Some(())
    }

    /// A quoted string. Type names and keys need no escapes.
    fn string(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start();
        let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let (string, rest) = text[1..].split_once(quote)?;
        self.rest = rest;
        Some(string)
    }

    /// A quoted string, or the text of the list that describes a record, so that it can be named.
    fn string_or_list(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start();
        if !text.starts_with('[') {
            return self.string();
        }
        let end = text.rfind(']')? + 1;
        self.rest = &text[end..];
        Some(&text[..end])
    }

    fn boolean(&mut self) -> Option<bool> {
        let text = self.rest.trim_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = text.strip_prefix(word) {
                self.rest = rest;
                return Some(value);
            }
        }
        None
    }

    /// A tuple of numbers below 2^64: `()`, `(3,)` or `(3, 4)`.
    fn tuple(&mut self) -> Option<Vec<u64>> {
        let (inside, rest) = self.rest.trim_start().strip_prefix('(')?.split_once(')')?;
        self.rest = rest;
        let inside = inside.trim();
        let inside = inside.strip_suffix(',').unwrap_or(inside);
        if inside.is_empty() {
            return Some(Vec::new());
        }
        inside.split(',').map(|number| number.trim().parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRIES: &str = "'descr': '<f2', 'fortran_order': False, 'shape': (3, 4)";

    fn read(bytes: &[u8]) -> Result<Header, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        std::fs::write(&path, bytes).unwrap();
        read_header(&InputFile::open(&path).unwrap()).map_err(|error| error.to_string())
    }

    fn file(version: [u8; 2], dict: &str) -> Vec<u8> {
        let len = dict.len() as u32;
        let len = if version[0] == 1 { &len.to_le_bytes()[..2] } else { &len.to_le_bytes() };
        [MAGIC, &version[..], len, dict.as_bytes()].concat()
    }

    #[test]
    fn versions_differ_in_the_length_of_the_length() {
        let dict = format!("{{{ENTRIES}, }}   \n");
        for (version, offset) in [([1, 0], 10), ([2, 0], 12), ([3, 0], 12)] {
            let data_offset = offset + dict.len() as u64;
            let stored = Stored::As(Element::F16);
            let wanted = Header { stored, shape: vec![3, 4], data_offset };
            assert_eq!(read(&file(version, &dict)), Ok(wanted), "{version:?}");
        }
        let error = read(&file([4, 0], &dict)).unwrap_err();
        let wanted = "at byte 6: found NumPy format version 4.0; wanted 1.0, 2.0 or 3.0";
        assert!(error.ends_with(wanted), "{error}");
    }

    #[test]
    fn dicts_may_be_spelled_in_other_ways() {
        for dict in [
            "{'shape':(3,4),'descr':'<f2','fortran_order':False}",
            "{\"descr\": \"<f2\", \"fortran_order\": False, \"shape\": (3, 4,), }",
            " { 'fortran_order' : False , 'descr' : '<f2' , 'shape' : ( 3 , 4 ) } ",
        ] {
            let header = read(&file([1, 0], dict)).unwrap();
            let found = (header.stored, &header.shape[..]);
            assert_eq!(found, (Stored::As(Element::F16), &[3, 4][..]), "{dict}");
        }
    }

    #[test]
    fn what_is_no_dict_of_the_three_entries_is_refused() {
        for dict in [
            String::new(),
            "{}".into(),
            format!("{{{ENTRIES}"),
            format!("{{{ENTRIES}}} x"),
            format!("{{{ENTRIES}, 'descr': '<f2'}}"),
            format!("{{{ENTRIES}, 'more': 1}}"),
            "{'descr': '<f2', 'fortran_order': False}".into(),
            "{'descr': '<f2', 'fortran_order': False, 'shape': (3, 18446744073709551616)}".into(),
            "{'descr': '<f2', 'fortran_order': False, 'shape': (3, , 4)}".into(),
            "{'descr': '<f2, 'fortran_order': False, 'shape': (3, 4)}".into(),
            "{'descr': '<f2', 'fortran_order': 0, 'shape': (3, 4)}".into(),
        ] {
            let error = read(&file([1, 0], &dict)).unwrap_err();
            assert!(error.contains("at byte 10: found a header that cannot be read"), "{dict}");
        }
    }

    #[test]
    fn lengths_beyond_the_file_and_beyond_reason_are_refused() {
        let mut bytes = file([2, 0], &format!("{{{ENTRIES}}}"));
        let here = bytes.len() - 12;
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = read(&bytes).unwrap_err();
        let wanted = format!("found a header of 4294967295 bytes; wanted at most {here} bytes");
        assert!(error.ends_with(&wanted), "{error}");
        let error = read(b"PK\x03\x04 an npz file").unwrap_err();
        assert!(error.ends_with("at byte 0: found no NumPy magic; wanted \\x93NUMPY"), "{error}");
    }

    #[test]
    fn a_written_header_has_a_fixed_length_and_is_read_back() {
        for (element, rows, dim) in
            [(Element::F32, 0, 1), (Element::I8, u64::MAX, 65_535), (Element::U8, 7, 384)]
        {
            let header = header_of(element, rows, dim);
            assert_eq!(header.last(), Some(&b'\n'));
            let (stored, shape) = (Stored::As(element), vec![rows, dim as u64]);
            assert_eq!(read(&header), Ok(Header { stored, shape, data_offset: 128 }));
        }
    }
}
