//! Array files: a 64-byte header, then raw bytes; their block checksums in a side file.
//!
//! `NAME.bin` is written once, from front to back. `NAME.bin.crc` has the same header (rows:
//! blocks, stride: 4) and holds the crc32 of each 4 KiB block of the whole of `NAME.bin`, header
//! included; the last block may be short. The manifest holds the digest of both files.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use bytemuck::Pod;
use xxhash_rust::xxh3::Xxh3;

use super::BLOCK;
use super::array_header::{
    ArrayHeader, ArrayKind, ArrayShape, CRCS, DATA_BYTES_AT, HEADER, ROWS_AT, Wanted,
};
use super::error::{OpenError, WriteError};
use super::listed_file::{FileWriter, ListedFile};
use super::manifest::{FileEntry, Manifest};
use super::ram_array::RamArray;
use super::storage::Storage;

/// How much is read or written by one call.
pub(super) const CHUNK: usize = 256 * BLOCK;

/// Writes one array file from front to back, and its block checksums beside it.
pub struct ArrayWriter<'a> {
    kind: ArrayKind,
    dir: &'a Path,
    data_bytes: u64,
    appended: u64,
    file: FileWriter<'a>,
    crcs: Vec<u8>,
}

impl<'a> ArrayWriter<'a> {
    /// Starts the array `kind` in `dir`.
    ///
    /// # Errors
    /// The file is there already or cannot be written.
    pub fn create(
        storage: &'a dyn Storage,
        dir: &'a Path,
        kind: ArrayKind,
        shape: ArrayShape,
    ) -> Result<ArrayWriter<'a>, WriteError> {
        let data_offset = kind.data_offset();
        let content = kind.content();
        let header = ArrayHeader { content, data_offset: data_offset as u32, shape };
        let file = FileWriter::create(storage, dir, kind.name())?;
        let mut writer = ArrayWriter {
            kind,
            dir,
            data_bytes: shape.data_bytes,
            appended: 0,
            file,
            crcs: vec![],
        };
        let mut head = header.to_bytes().to_vec();
        head.resize(data_offset, 0);
        writer.push(&head)?;
        Ok(writer)
    }

    /// Appends bytes of rows.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.appended += bytes.len() as u64;
        self.push(bytes)
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            let room = (CHUNK - self.file.buffer.len()).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            self.file.buffer.extend_from_slice(now);
            bytes = later;
            if self.file.buffer.len() == CHUNK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        for block in self.file.buffer.chunks(BLOCK) {
            self.crcs.extend_from_slice(&crc32fast::hash(block).to_le_bytes());
        }
        self.file.flush()
    }

    /// Writes what is left and the block checksums; returns once both files are on the device.
    ///
    /// # Errors
    /// The disk refuses.
    ///
    /// # Panics
    /// If the rows appended are not as many bytes as the shape said.
    pub fn finish(mut self) -> Result<[FileEntry; 2], WriteError> {
        assert_eq!(self.appended, self.data_bytes, "{}: bytes of rows", self.kind.name());
        self.flush()?;
        let ArrayWriter { kind, dir, file, crcs, .. } = self;
        let storage = file.storage;
        let entry = file.finish()?;
        let shape = ArrayShape::packed(crcs.len() as u64 / 4, 4);
        let header = ArrayHeader { content: CRCS, data_offset: HEADER as u32, shape };
        let mut side = FileWriter::create(storage, dir, kind.crc_name())?;
        side.buffer.extend_from_slice(&header.to_bytes());
        side.buffer.extend_from_slice(&crcs);
        Ok([entry, side.finish()?])
    }
}

/// Reads the block checksums of the array `kind`, whose file has `length` bytes.
pub(super) fn read_crcs(
    dir: &Path,
    manifest: &Manifest,
    kind: ArrayKind,
    length: u64,
) -> Result<RamArray<u32>, OpenError> {
    let side = ListedFile::open(dir, manifest, kind.crc_name())?;
    let blocks = length.div_ceil(BLOCK as u64);
    let wanted = Wanted { content: CRCS, data_offset: HEADER, rows: blocks };
    let shape = side.header(wanted)?.shape;
    if shape != ArrayShape::packed(blocks, 4) {
        let what = format!("{shape:?}; wanted a crc32 for each of {blocks} blocks");
        return Err(OpenError::damaged(&side.path, ROWS_AT as u64, what));
    }
    // The header is 16 values of 4 bytes: all is read and verified at once, then it is dropped.
    let mut whole = RamArray::<u32>::zeroed(HEADER / 4 + blocks as usize)?;
    side.read_whole(bytemuck::cast_slice_mut(&mut whole))?;
    let mut crcs = RamArray::<u32>::zeroed(blocks as usize)?;
    crcs.copy_from_slice(&whole[HEADER / 4..]);
    Ok(crcs)
}

/// Whether `bytes` are what block `index` of the file at `path` held when it was written.
pub(super) fn verify_block(
    path: &Path,
    crcs: &[u32],
    index: u64,
    bytes: &[u8],
) -> Result<(), OpenError> {
    let (found, wanted) = (crc32fast::hash(bytes), crcs[index as usize]);
    if found == wanted {
        return Ok(());
    }
    let what = format!("crc32 of the 4 KiB block is {found:08x}; wanted {wanted:08x}");
    Err(OpenError::damaged(path, index * BLOCK as u64, what))
}

/// An array that stays on disk: its header and first block verified, its checksums in memory.
#[derive(Debug)]
pub struct OpenArray {
    listed: ListedFile,
    header: ArrayHeader,
    crcs: RamArray<u32>,
}

impl OpenArray {
    /// Bytes of checksums in memory.
    pub fn crc_bytes(&self) -> u64 {
        self.crcs.bytes()
    }

    /// Opens the array `kind` of the index in `dir`. Costs memory of 1/1024 of its length.
    ///
    /// # Errors
    /// Length, header, checksums or first block contradict each other or the manifest.
    pub fn open(dir: &Path, manifest: &Manifest, kind: ArrayKind) -> Result<OpenArray, OpenError> {
        let listed = ListedFile::open(dir, manifest, kind.name())?;
        let header = listed.header(kind.wanted(manifest))?;
        let ArrayShape { rows, stride, data_bytes, .. } = header.shape;
        if kind.is_packed() && rows.checked_mul(u64::from(stride)) != Some(data_bytes) {
            let what = format!("{rows} rows of {stride} bytes are not {data_bytes} bytes");
            return Err(OpenError::damaged(&listed.path, ROWS_AT as u64, what));
        }
        let crcs = read_crcs(dir, manifest, kind, listed.length)?;
        let array = OpenArray { listed, header, crcs };
        array.read_first_block(&mut [0; BLOCK])?;
        Ok(array)
    }

    /// What the header says.
    pub fn header(&self) -> &ArrayHeader {
        &self.header
    }

    /// Whether there are `rows` rows of `stride` bytes each.
    ///
    /// # Errors
    /// There are not.
    pub fn check_shape(&self, rows: u64, stride: usize) -> Result<(), OpenError> {
        let found = self.header.shape;
        if (found.rows, found.stride as usize) == (rows, stride) {
            return Ok(());
        }
        let what =
            format!("{} rows of {} bytes; wanted {rows} of {stride}", found.rows, found.stride);
        Err(OpenError::damaged(self.path(), 0, what))
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.listed.path
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.listed.file
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.listed.length
    }

    /// Whether `bytes` are what block `index` of the file held when it was written.
    ///
    /// # Errors
    /// They are not. Names the block.
    ///
    /// # Panics
    /// If the file has no such block.
    pub fn verify_block(&self, index: u64, bytes: &[u8]) -> Result<(), OpenError> {
        verify_block(self.path(), &self.crcs, index, bytes)
    }

    /// How many blocks of the file bytes `range` of the rows touch.
    pub fn blocks_of(&self, range: &Range<u64>) -> u64 {
        let data_offset = u64::from(self.header.data_offset);
        let (start, end) = (range.start + data_offset, range.end + data_offset);
        end.div_ceil(BLOCK as u64).saturating_sub(start / BLOCK as u64)
    }

    /// Reads bytes `range` of the rows (from the first row's first byte), and verifies all
    /// blocks they touch.
    ///
    /// # Errors
    /// A block contradicts its checksum; a read is refused.
    ///
    /// # Panics
    /// If the range ends behind the rows.
    pub fn read_range(&self, range: Range<u64>) -> Result<Vec<u8>, OpenError> {
        assert!(range.end <= self.header.shape.data_bytes, "a range of the rows");
        let data_offset = u64::from(self.header.data_offset);
        let (start, end) = (range.start + data_offset, range.end + data_offset);
        let first = start / BLOCK as u64;
        let covered = first * BLOCK as u64..end.next_multiple_of(BLOCK as u64).min(self.length());
        let mut bytes = vec![0; (covered.end - covered.start) as usize];
        self.listed.read_at(&mut bytes, covered.start)?;
        for (index, block) in (first..).zip(bytes.chunks(BLOCK)) {
            self.verify_block(index, block)?;
        }
        bytes.truncate((end - covered.start) as usize);
        bytes.drain(..(start - covered.start) as usize);
        Ok(bytes)
    }

    /// Reads all rows in order into memory and verifies each block.
    ///
    /// # Errors
    /// The rows are no whole number of `T`; a block contradicts its checksum; memory or a read is
    /// refused.
    pub fn read_all<T: Pod>(&self) -> Result<RamArray<T>, OpenError> {
        let data_bytes = self.header.shape.data_bytes;
        if !data_bytes.is_multiple_of(size_of::<T>() as u64) {
            let what = format!("{data_bytes} bytes are no whole number of {}", size_of::<T>());
            return Err(OpenError::damaged(self.path(), DATA_BYTES_AT as u64, what));
        }
        let mut values = RamArray::<T>::zeroed(data_bytes as usize / size_of::<T>())?;
        self.read_rows(bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// As [`read_all`](OpenArray::read_all) for rows behind whole blocks of header: of every `unit`
    /// bytes the first `used`, one lot behind the other, `bytes` in all.
    ///
    /// # Errors
    /// A block contradicts its checksum; memory or a read is refused.
    ///
    /// # Panics
    /// If a unit is not of whole blocks, or the rows are not `bytes` in whole units.
    pub fn read_used(
        &self,
        (unit, used): (usize, usize),
        bytes: u64,
    ) -> Result<RamArray<u8>, OpenError> {
        assert!(unit.is_multiple_of(BLOCK) && (1..=unit).contains(&used), "units of whole blocks");
        let units = bytes.div_ceil(used as u64);
        assert_eq!(units * unit as u64, self.header.shape.data_bytes, "whole units");
        let mut values = RamArray::zeroed(bytes as usize)?;
        let mut first = [0; BLOCK];
        let (mut reading, _) = InOrder::begin(self, &mut first)?;
        let at_once = (CHUNK / unit).max(1);
        let mut chunk = RamArray::<u8>::zeroed(at_once * unit)?;
        for values in values.chunks_mut(at_once * used) {
            let chunk = &mut chunk[..values.len().div_ceil(used) * unit];
            reading.next(chunk)?;
            for (values, unit) in values.chunks_mut(used).zip(chunk.chunks(unit)) {
                values.copy_from_slice(&unit[..values.len()]);
            }
        }
        reading.finish()?;
        Ok(values)
    }

    /// The first block holds the header, and behind a short header the first rows.
    fn read_first_block<'b>(&self, block: &'b mut [u8; BLOCK]) -> Result<&'b [u8], OpenError> {
        let first = &mut block[..self.length().min(BLOCK as u64) as usize];
        self.listed.read_at(first, 0)?;
        self.verify_block(0, first)?;
        Ok(first)
    }

    fn read_rows(&self, rows: &mut [u8]) -> Result<(), OpenError> {
        let mut first = [0; BLOCK];
        let (mut reading, first) = InOrder::begin(self, &mut first)?;
        let (head, rest) = rows.split_at_mut(first.len());
        head.copy_from_slice(first);
        for chunk in rest.chunks_mut(CHUNK) {
            reading.next(chunk)?;
        }
        reading.finish()
    }
}

/// An array that is read into memory, from its first block to its last.
///
/// The checksums of blocks name the place of damage. They are blind to a header of another index,
/// whose own crc32 leaves the block's unchanged: the digest sees that too.
struct InOrder<'a> {
    array: &'a OpenArray,
    digest: Xxh3,
    block: u64,
}

impl<'a> InOrder<'a> {
    /// Reads the first block, and returns the rows in it.
    fn begin<'b>(
        array: &'a OpenArray,
        block: &'b mut [u8; BLOCK],
    ) -> Result<(InOrder<'a>, &'b [u8]), OpenError> {
        let first = array.read_first_block(block)?;
        let mut digest = Xxh3::new();
        digest.update(first);
        let rows = &first[array.header.data_offset as usize..];
        Ok((InOrder { array, digest, block: 1 }, rows))
    }

    /// Reads the next whole blocks; the last one of the file may be shorter.
    fn next(&mut self, chunk: &mut [u8]) -> Result<(), OpenError> {
        self.array.listed.read_at(chunk, self.block * BLOCK as u64)?;
        for bytes in chunk.chunks(BLOCK) {
            self.array.verify_block(self.block, bytes)?;
            self.block += 1;
        }
        self.digest.update(chunk);
        Ok(())
    }

    fn finish(self) -> Result<(), OpenError> {
        self.array.listed.check_digest(self.digest.digest128())
    }
}

/// Reads the array `kind` in order into memory, verifying each block on the way.
///
/// # Errors
/// The first thing found that contradicts the manifest, the header or a checksum, with file and
/// offset; rows that are no whole number of `T`; memory or a read refused.
pub fn read_array<T: Pod>(
    dir: &Path,
    manifest: &Manifest,
    kind: ArrayKind,
) -> Result<(ArrayHeader, RamArray<T>), OpenError> {
    let array = OpenArray::open(dir, manifest, kind)?;
    Ok((array.header, array.read_all()?))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::disk::{Disk, Measured, read_meta, sample};

    /// Reads every byte of the sample, as opening and searching an index would.
    fn open_all(dir: &Path) -> Result<(), OpenError> {
        let manifest = Manifest::read(dir)?;
        Measured::read(dir)?;
        read_meta(dir, &manifest)?;
        for kind in sample::KINDS {
            read_array::<u8>(dir, &manifest, kind)?;
        }
        Ok(())
    }

    #[test]
    fn arrays_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = sample::write(&Disk, dir.path()).unwrap();
        for kind in sample::KINDS {
            let (header, bytes) = read_array::<u8>(dir.path(), &manifest, kind).unwrap();
            assert_eq!(&*bytes, sample::data(kind), "{kind:?}");
            assert_eq!(header.shape.rows, sample::N);
        }
        assert_eq!(read_meta(dir.path(), &manifest).unwrap().archive(), &[7; 300]);
    }

    #[test]
    fn rows_come_back_whatever_their_number() {
        for count in [0, 1, 4031, 4032, 4033, 8128, CHUNK - 64, CHUNK, 2 * CHUNK + 4032 + 1] {
            let dir = tempfile::tempdir().unwrap();
            let data: Vec<u8> = (0..count).map(|i| (i % 251) as u8).collect();
            let shape = ArrayShape::packed(count as u64, 1);
            let mut writer =
                ArrayWriter::create(&Disk, dir.path(), ArrayKind::Codes, shape).unwrap();
            data.chunks(70_001).for_each(|part| writer.append(part).unwrap());
            let manifest = Manifest {
                n: count as u64,
                files: writer.finish().unwrap().into(),
                ..sample::manifest()
            };
            let (_, read) = read_array::<u8>(dir.path(), &manifest, ArrayKind::Codes).unwrap();
            assert!(*read == *data, "{count} bytes");
        }
    }

    #[test]
    fn any_flipped_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        sample::write(&Disk, dir.path()).unwrap();
        open_all(dir.path()).unwrap();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let good = fs::read(&path).unwrap();
            for (offset, byte) in good.iter().enumerate() {
                file.write_all_at(&[byte ^ (1 << (offset % 8))], offset as u64).unwrap();
                let error = open_all(dir.path()).unwrap_err();
                let name = path.file_name().unwrap().to_str().unwrap();
                assert!(error.to_string().contains(name), "{name} at {offset}: {error}");
                file.write_all_at(&[*byte], offset as u64).unwrap();
            }
        }
        open_all(dir.path()).unwrap();
    }

    #[test]
    fn damage_names_file_and_block() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = sample::write(&Disk, dir.path()).unwrap();
        let path = dir.path().join("graph.bin");
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"?", 5000).unwrap();
        let error = read_array::<u32>(dir.path(), &manifest, ArrayKind::Graph).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("graph.bin: damaged at byte 4096: crc32"), "{text}");
    }

    #[test]
    fn cut_and_extended_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        sample::write(&Disk, dir.path()).unwrap();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            let good = fs::read(&path).unwrap();
            for length in [0, 1, 63, 64, 65, good.len() - 1, good.len() + 1, good.len() + 4096] {
                if length == good.len() {
                    continue;
                }
                let mut bad = good.clone();
                bad.resize(length, 0);
                fs::write(&path, bad).unwrap();
                open_all(dir.path()).unwrap_err();
            }
            fs::write(&path, good).unwrap();
        }
        open_all(dir.path()).unwrap();
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        sample::write(&Disk, dir.path()).unwrap();
        fs::remove_file(dir.path().join("keys.bin.crc")).unwrap();
        let error = open_all(dir.path()).unwrap_err();
        assert!(error.to_string().contains("keys.bin.crc"), "{error}");
    }

    #[test]
    fn arrays_cannot_be_swapped() {
        let dir = tempfile::tempdir().unwrap();
        let shape = ArrayShape::packed(4, 4);
        let mut writer = ArrayWriter::create(&Disk, dir.path(), ArrayKind::Codes, shape).unwrap();
        writer.append(&[1; 16]).unwrap();
        let mut files = writer.finish().unwrap();
        for entry in &mut files {
            let old = dir.path().join(&entry.name);
            entry.name = entry.name.replace("codes", "graph");
            fs::rename(old, dir.path().join(&entry.name)).unwrap();
        }
        let manifest = Manifest { n: 4, files: files.into(), ..sample::manifest() };
        let error = read_array::<u32>(dir.path(), &manifest, ArrayKind::Graph).unwrap_err();
        assert!(error.to_string().contains("kind code; wanted grph"), "{error}");
    }
}
