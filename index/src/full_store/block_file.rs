//! The full store by read calls: nothing stays in the process, each read is verified.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use rustix::fs::OFlags;

use super::layout::Layout;
use crate::disk::{BLOCK, OpenArray, OpenError, RamArray};

/// The file, and how to read a unit of it.
#[derive(Debug)]
pub(super) struct BlockFile {
    array: OpenArray,
    layout: Layout,
    /// The file once more, past the page cache.
    direct: Option<File>,
}

impl BlockFile {
    pub(super) fn new(array: OpenArray, layout: Layout) -> BlockFile {
        BlockFile { array, layout, direct: None }
    }

    /// From now on reads go past the page cache.
    ///
    /// # Errors
    /// The file system cannot do that, or the path leads to another file by now.
    pub(super) fn pass_page_cache(&mut self) -> Result<(), OpenError> {
        let (path, flags) = (self.array.path(), OFlags::DIRECT.bits() as i32);
        let refused = || OpenError::io(path, "open with O_DIRECT");
        let direct = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let direct = direct.map_err(refused())?;
        let place = |file: &File| file.metadata().map(|data| (data.dev(), data.ino()));
        if place(&direct).map_err(refused())? != place(self.array.file()).map_err(refused())? {
            let what = "another file has taken its place since it was opened";
            return Err(OpenError::damaged(path, 0, what));
        }
        // Some file systems refuse no more than the reads.
        let mut first = RamArray::zeroed(BLOCK)?;
        direct.read_exact_at(&mut first, 0).map_err(refused())?;
        self.direct = Some(direct);
        Ok(())
    }

    /// The same units, but read from another file: one that misbehaves.
    #[cfg(test)]
    pub(super) fn reading_from(self, file: File) -> BlockFile {
        BlockFile { direct: Some(file), ..self }
    }

    pub(super) fn array(&self) -> &OpenArray {
        &self.array
    }

    /// What to read from.
    pub(super) fn file(&self) -> &File {
        self.direct.as_ref().unwrap_or_else(|| self.array.file())
    }

    /// Where a unit starts in the file.
    pub(super) fn offset(&self, unit: u32) -> u64 {
        BLOCK as u64 + self.layout.unit_start(unit)
    }

    /// Reads a unit into `bytes`, which start at a multiple of the block, and verifies it.
    pub(super) fn read_unit(&self, unit: u32, bytes: &mut [u8]) -> Result<(), OpenError> {
        let start = self.offset(unit);
        let mut done = 0;
        while done < bytes.len() {
            match self.file().read_at(&mut bytes[done..], start + done as u64) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(OpenError::io(self.array.path(), "read")(e)),
                // Reads past the page cache start on block boundaries: a part of a block is read
                // again. Less than a block at once means that the file ends there.
                Ok(read) if read < BLOCK => return Err(self.ended(start + (done + read) as u64)),
                Ok(read) => done += read / BLOCK * BLOCK,
            }
        }
        self.verify_unit(unit, bytes)
    }

    /// Whether `bytes` are the unit that was written.
    pub(super) fn verify_unit(&self, unit: u32, bytes: &[u8]) -> Result<(), OpenError> {
        for (block, bytes) in self.layout.file_blocks(unit).zip(bytes.chunks_exact(BLOCK)) {
            self.array.verify_block(block, bytes)?;
        }
        Ok(())
    }

    fn ended(&self, offset: u64) -> OpenError {
        let what = format!("file ends here; wanted {} bytes", self.array.length());
        OpenError::damaged(self.array.path(), offset, what)
    }
}
