//! The first 64 bytes of an array file: which array it is, how long, and whether to believe it.

use std::path::Path;

use super::error::OpenError;
use super::{BLOCK, Manifest};

/// Bytes of a header.
pub const HEADER: usize = 64;
const MAGIC: [u8; 8] = *b"FOVEAL\x1a\n";
const VERSION_AT: usize = 8;
const TAG_AT: usize = 12;
pub(super) const ROWS_AT: usize = 16;
const STRIDE_AT: usize = 24;
const DATA_OFFSET_AT: usize = 28;
pub(super) const DATA_BYTES_AT: usize = 32;
const FIRST_AT: usize = 40;
const RESERVED_AT: usize = 48;
const CRC_AT: usize = 60;

/// What a header says of a file's content: its kind, and the version of its layout, which is the
/// format version that last changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) tag: [u8; 4],
    pub(super) version: u32,
}

/// A file of block checksums.
pub(super) const CRCS: Content = Content { tag: *b"crcs", version: 7 };

/// The arrays of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArrayKind {
    /// One compressed vector a row.
    Codes,
    /// The neighbors of one node a row.
    Graph,
    /// The caller's name of one row.
    Keys,
    /// Full vectors, no row across a block boundary unless it is larger than a block.
    Vectors,
    /// JSON texts, one behind the other.
    Payload,
    /// Where each text starts, and where the last one ends.
    PayloadOffsets,
    /// The few-bit code of one row for decoding, and its part of the logit that is no code.
    Tokens,
    /// The extra bits of a compressed vector, beyond the fourth a dimension.
    Extra,
    /// The ids in the order of their keys.
    KeyOrder,
}

impl ArrayKind {
    /// Every array, in the order in which the manifest lists them.
    pub const ALL: [ArrayKind; 9] = [
        ArrayKind::Codes,
        ArrayKind::Graph,
        ArrayKind::Keys,
        ArrayKind::Vectors,
        ArrayKind::Payload,
        ArrayKind::PayloadOffsets,
        ArrayKind::Tokens,
        ArrayKind::Extra,
        ArrayKind::KeyOrder,
    ];

    /// The file that holds the array.
    pub fn name(self) -> &'static str {
        match self {
            ArrayKind::Codes => "codes.bin",
            ArrayKind::Graph => "graph.bin",
            ArrayKind::Keys => "keys.bin",
            ArrayKind::Vectors => "vectors.bin",
            ArrayKind::Payload => "payload.bin",
            ArrayKind::PayloadOffsets => "payload_offsets.bin",
            ArrayKind::Tokens => "tokens.bin",
            ArrayKind::Extra => "finer.bin",
            ArrayKind::KeyOrder => "key_order.bin",
        }
    }

    /// The file that holds its block checksums.
    pub fn crc_name(self) -> &'static str {
        match self {
            ArrayKind::Codes => "codes.bin.crc",
            ArrayKind::Graph => "graph.bin.crc",
            ArrayKind::Keys => "keys.bin.crc",
            ArrayKind::Vectors => "vectors.bin.crc",
            ArrayKind::Payload => "payload.bin.crc",
            ArrayKind::PayloadOffsets => "payload_offsets.bin.crc",
            ArrayKind::Tokens => "tokens.bin.crc",
            ArrayKind::Extra => "finer.bin.crc",
            ArrayKind::KeyOrder => "key_order.bin.crc",
        }
    }

    pub(super) fn content(self) -> Content {
        let (tag, version) = match self {
            ArrayKind::Codes => (*b"code", 7),
            ArrayKind::Graph => (*b"grph", 7),
            ArrayKind::Keys => (*b"keys", 7),
            ArrayKind::Vectors => (*b"vecs", 7),
            ArrayKind::Payload => (*b"json", 7),
            ArrayKind::PayloadOffsets => (*b"joff", 7),
            ArrayKind::Tokens => (*b"toks", 7),
            ArrayKind::Extra => (*b"finr", 7),
            ArrayKind::KeyOrder => (*b"kord", 8),
        };
        Content { tag, version }
    }

    /// Whether the rows lie one behind the other, all of one length.
    pub(super) fn is_packed(self) -> bool {
        !matches!(self, ArrayKind::Vectors | ArrayKind::Payload)
    }

    /// How many rows the array of an index has.
    fn rows(self, manifest: &Manifest) -> u64 {
        match self {
            ArrayKind::PayloadOffsets => manifest.n + 1,
            ArrayKind::Codes | ArrayKind::Extra | ArrayKind::Graph => {
                manifest.n - u64::from(manifest.extremes)
            }
            ArrayKind::Keys
            | ArrayKind::KeyOrder
            | ArrayKind::Vectors
            | ArrayKind::Payload
            | ArrayKind::Tokens => manifest.n,
        }
    }

    /// What the header of the array must say in an index.
    pub(super) fn wanted(self, manifest: &Manifest) -> Wanted {
        let (content, data_offset) = (self.content(), self.data_offset());
        Wanted { content, data_offset, rows: self.rows(manifest) }
    }

    /// Where the rows start: full vectors on a block boundary, all others behind the header.
    pub(super) fn data_offset(self) -> usize {
        if self == ArrayKind::Vectors { BLOCK } else { HEADER }
    }
}

/// The shape of an array, known before its first byte is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrayShape {
    /// How many rows there are.
    pub rows: u64,
    /// Bytes of a row; 0 where rows differ in length.
    pub stride: u32,
    /// Bytes of all rows, padding between them included.
    pub data_bytes: u64,
    /// keys.bin: what to add to every stored key. 0 elsewhere.
    pub first: u64,
}

impl ArrayShape {
    /// Rows of `stride` bytes, one behind the other.
    pub fn packed(rows: u64, stride: u32) -> ArrayShape {
        ArrayShape { rows, stride, data_bytes: rows * u64::from(stride), first: 0 }
    }
}

/// The first 64 bytes of an array file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrayHeader {
    pub(super) content: Content,
    /// Where the rows start, in bytes from the start of the file.
    pub data_offset: u32,
    /// What follows the header.
    pub shape: ArrayShape,
}

impl ArrayHeader {
    pub(super) fn to_bytes(self) -> [u8; HEADER] {
        let mut b = [0; HEADER];
        let mut put = |at: usize, field: &[u8]| b[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(VERSION_AT, &self.content.version.to_le_bytes());
        put(TAG_AT, &self.content.tag);
        put(ROWS_AT, &self.shape.rows.to_le_bytes());
        put(STRIDE_AT, &self.shape.stride.to_le_bytes());
        put(DATA_OFFSET_AT, &self.data_offset.to_le_bytes());
        put(DATA_BYTES_AT, &self.shape.data_bytes.to_le_bytes());
        put(FIRST_AT, &self.shape.first.to_le_bytes());
        let crc = crc32fast::hash(&b[..CRC_AT]);
        b[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// Reads a header: whose file, which version, the header's checksum, then what it says
    /// against the `length` of the file.
    pub(super) fn from_bytes(
        path: &Path,
        b: &[u8; HEADER],
        wanted: Wanted,
        length: u64,
    ) -> Result<ArrayHeader, OpenError> {
        let damaged = |at: usize, what: String| Err(OpenError::damaged(path, at as u64, what));
        if b[..VERSION_AT] != MAGIC {
            return damaged(0, format!("starts with {:02x?}; wanted {MAGIC:02x?}", &b[..8]));
        }
        let (version, readable) = (u32_at(b, VERSION_AT), wanted.content.version);
        if version != readable {
            return Err(OpenError::Version { path: path.into(), found: version, wanted: readable });
        }
        let (stored, computed) = (u32_at(b, CRC_AT), crc32fast::hash(&b[..CRC_AT]));
        if stored != computed {
            return damaged(0, format!("header crc32 is {computed:08x}; wanted {stored:08x}"));
        }
        let shape = ArrayShape {
            rows: u64_at(b, ROWS_AT),
            stride: u32_at(b, STRIDE_AT),
            data_bytes: u64_at(b, DATA_BYTES_AT),
            first: u64_at(b, FIRST_AT),
        };
        let tag = [b[TAG_AT], b[TAG_AT + 1], b[TAG_AT + 2], b[TAG_AT + 3]];
        let content = Content { tag, version };
        let header = ArrayHeader { content, data_offset: u32_at(b, DATA_OFFSET_AT), shape };
        if let Err((at, what)) = header.check(wanted, length) {
            return damaged(at, what);
        }
        if b[RESERVED_AT..CRC_AT].iter().any(|&byte| byte != 0) {
            return damaged(RESERVED_AT, "reserved bytes are not 0".into());
        }
        Ok(header)
    }

    /// Whether the header fits its place; else which field does not, and why.
    fn check(&self, wanted: Wanted, length: u64) -> Result<(), (usize, String)> {
        if self.content.tag != wanted.content.tag {
            let tags = (self.content.tag, wanted.content.tag);
            let (found, wanted) = (tags.0.escape_ascii(), tags.1.escape_ascii());
            return Err((TAG_AT, format!("holds an array of kind {found}; wanted {wanted}")));
        }
        let (found, wanted_offset) = (self.data_offset, wanted.data_offset);
        if found as usize != wanted_offset {
            let what = format!("rows start at {found}; wanted {wanted_offset}");
            return Err((DATA_OFFSET_AT, what));
        }
        let (found, offset) = (self.shape.data_bytes, u64::from(self.data_offset));
        if found.checked_add(offset) != Some(length) {
            let held = length.saturating_sub(offset);
            let what = format!("header tells of {found} bytes of rows; the file holds {held}");
            return Err((DATA_BYTES_AT, what));
        }
        if self.shape.rows != wanted.rows {
            let (found, wanted) = (self.shape.rows, wanted.rows);
            return Err((ROWS_AT, format!("header tells of {found} rows; wanted {wanted}")));
        }
        Ok(())
    }
}

/// What a header must say for the file to be the one looked for.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) content: Content,
    pub(super) data_offset: usize,
    pub(super) rows: u64,
}

fn u32_at(b: &[u8; HEADER], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn u64_at(b: &[u8; HEADER], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_with_a_true_checksum_are_still_judged() {
        let shape = ArrayShape::packed(3, 5);
        let content = Content { tag: *b"code", version: 7 };
        let header = ArrayHeader { content, data_offset: 64, shape };
        let wanted = Wanted { content, data_offset: 64, rows: 3 };
        let judge = |change: &dyn Fn(&mut [u8; HEADER])| {
            let mut bytes = header.to_bytes();
            change(&mut bytes);
            let crc = crc32fast::hash(&bytes[..CRC_AT]);
            bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
            ArrayHeader::from_bytes(Path::new("codes.bin"), &bytes, wanted, 79)
        };
        assert_eq!(judge(&|_| ()).unwrap(), header);
        let text = judge(&|b| b[VERSION_AT] = 9).unwrap_err().to_string();
        assert_eq!(text, "codes.bin: format version 9; wanted 7");
        let text = judge(&|b| b[DATA_BYTES_AT + 7] = 0xff).unwrap_err().to_string();
        assert!(text.contains("the file holds 15"), "{text}");
        let text = judge(&|b| b[ROWS_AT] = 4).unwrap_err().to_string();
        assert!(text.contains("4 rows; wanted 3"), "{text}");
        judge(&|b| b[DATA_OFFSET_AT] = 60).unwrap_err();
        judge(&|b| b[RESERVED_AT] = 1).unwrap_err();
        judge(&|b| b[0] = b'f').unwrap_err();
    }
}
