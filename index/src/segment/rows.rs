//! Rows and payloads of segments as sources, by id: what a merge reads.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use foveal_datasets::row_source::check_range;
use foveal_datasets::{Element, FileError, RowSource, Rows, Values};

use super::{SearchError, Segment};
use crate::fullview::FullVectors;
use crate::payload::{PayloadError, PayloadSource, check_count, check_each};
use crate::stats::{Job, QueryStats, Stop};

/// The rows of an index in the order of their ids.
pub struct SegmentRows {
    index: Segment,
    /// Readers that no thread uses at the moment.
    idle: Mutex<Vec<FullVectors>>,
}

impl Segment {
    /// Its rows, to build another index of them. Row `i` has the key `keys()[i]`.
    pub fn all_rows(&self) -> SegmentRows {
        SegmentRows { index: self.clone(), idle: Mutex::new(Vec::new()) }
    }

    /// The keys of its rows, in the order of [`Segment::all_rows`].
    pub fn keys(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        (0..self.len() as u32).map(|id| self.shared.keys.key(id))
    }
}

impl SegmentRows {
    fn read_ids(&self, ids: &[u32]) -> Result<Rows, FileError> {
        let (shared, dim) = (&*self.index.shared, self.index.dim());
        let mut values = Values::zeroed(shared.manifest.element, ids.len() * dim);
        let row_bytes = dim * shared.manifest.element.size();
        let out = values.bytes_mut();
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = idle().pop();
        let mut reader = reader.unwrap_or_else(|| shared.full_vectors());
        reader.begin_query();
        let (stop, mut stats) = (Stop::default(), QueryStats::default());
        let request = (ids, &stop, &mut stats);
        let read = reader.rows(&shared.row_origin(), request, &mut |i, row| {
            out[i * row_bytes..][..row_bytes].copy_from_slice(row.bytes());
        });
        idle().push(reader);
        read.map_err(|error| {
            let error = SearchError::from(error);
            FileError::Source { kind: error.kind(), source: error.into() }
        })?;
        Ok(Rows::new(dim, values).expect("whole rows of the index's dimension"))
    }
}

impl RowSource for SegmentRows {
    fn path(&self) -> &Path {
        self.index.path()
    }

    fn len(&self) -> usize {
        self.index.len() as usize
    }

    fn dim(&self) -> usize {
        self.index.dim()
    }

    fn element(&self) -> Element {
        self.index.shared.manifest.element
    }

    fn read(&self, rows: Range<usize>) -> Result<Rows, FileError> {
        check_range(self, &rows)?;
        self.read_ids(&(rows.start as u32..rows.end as u32).collect::<Vec<u32>>())
    }

    fn read_each(&self, rows: &[usize]) -> Result<Rows, FileError> {
        rows.iter().try_for_each(|row| check_range(self, &(*row..*row + 1)))?;
        self.read_ids(&rows.iter().map(|row| *row as u32).collect::<Vec<u32>>())
    }
}

impl fmt::Debug for SegmentRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentRows").field("index", &self.path()).finish_non_exhaustive()
    }
}

/// Payloads of some rows of some segments.
pub struct SegmentPayloads {
    segments: Vec<Segment>,
    /// Segment and id of each row.
    rows: Vec<(u32, u32)>,
    /// Bytes of all texts, once they were checked.
    bytes: AtomicU64,
}

impl SegmentPayloads {
    /// The payloads of the rows of each segment, in the order of [`Segment::all_rows`], those left
    /// out whose ids are named: ascending.
    ///
    /// # Errors
    /// A segment without payloads.
    pub fn new(parts: Vec<(Segment, &[u32])>) -> Result<SegmentPayloads, PayloadError> {
        let (mut segments, mut rows) = (Vec::new(), Vec::new());
        for ((index, left_out), number) in parts.into_iter().zip(0..) {
            if index.shared.payload.is_none() {
                return Err(PayloadError::None { path: index.path().into() });
            }
            let kept = (0..index.len() as u32).filter(|id| left_out.binary_search(id).is_err());
            rows.extend(kept.map(|id| (number, id)));
            segments.push(index);
        }
        Ok(SegmentPayloads { segments, rows, bytes: AtomicU64::new(0) })
    }
}

impl PayloadSource for SegmentPayloads {
    fn path(&self) -> &Path {
        match &self.segments[..] {
            [index] => index.path(),
            _ => Path::new("payloads of several segments"),
        }
    }

    fn check(&self, n: u64, job: Job<'_>) -> Result<u64, PayloadError> {
        check_count(self, self.rows.len() as u64, n)?;
        let (digest, bytes) = check_each(self, n, job)?;
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(digest)
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn read(&self, row: u32, text: &mut Vec<u8>) -> Result<(), PayloadError> {
        let (index, id) = self.rows[row as usize];
        let payload = self.segments[index as usize].shared.payload.as_ref();
        let read = payload.expect("`new` saw payloads").get(id)?.0;
        *text = read.into_bytes();
        Ok(())
    }

    fn memory_per_row(&self) -> u64 {
        8
    }
}

impl fmt::Debug for SegmentPayloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentPayloads").field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}
