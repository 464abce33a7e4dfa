//! An immutable index: opened, checked, upgraded; what it says of itself; its rows by key.

mod by_key;
mod check;
mod error;
mod open;
mod rows;
mod upgrade;

pub use check::{CheckReport, check, inspect};
pub use error::SearchError;
pub use rows::{SegmentPayloads, SegmentRows};
pub use upgrade::{UpgradeError, Upgraded, upgrade};

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use foveal_datasets::{Metric, Row};

use crate::calibrate::Frontier;
use crate::disk::{Manifest, OpenError};
use crate::distance::{MIN_SQUARE, is_too_long};
use crate::full_store::{FullStore, Io, OpenOptions};
use crate::fullview::{FullVectors, Fullview, RowOrigin};
use crate::id_set::IdSet;
use crate::key_table::KeyTable;
use crate::payload::Payload;
use crate::plan::few_rows;
use crate::preview::Preview;
use crate::vocabulary::Vocabulary;

use open::Opened;

pub(crate) use open::Meta;

/// An index, open for queries. Cheap to clone; shared between threads.
#[derive(Clone)]
pub struct Segment {
    pub(crate) shared: Arc<Shared>,
}

/// What all searchers and decoders of an index share.
pub(crate) struct Shared {
    path: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) frontier: Frontier,
    pub(crate) preview: Preview,
    /// Only where sample hidden states were given to an inner-product build.
    pub(crate) vocabulary: Option<Vocabulary>,
    pub(crate) keys: KeyTable,
    /// None where the codes hold the rows.
    pub(crate) store: Option<FullStore>,
    pub(crate) payload: Option<Payload>,
    /// All rows, where they are so few that every search scans them.
    pub(crate) few: Option<IdSet>,
    /// Rows that codes tell little about; made by the first decode.
    pub(crate) odd: OnceLock<Vec<u32>>,
}

impl Segment {
    /// Opens an index with the defaults: full vectors mapped.
    ///
    /// Codes, graph and keys are read in order into memory and verified on the way. The graph of an
    /// output layer waits for the first search or decode that walks it, which names its damage.
    ///
    /// # Errors
    /// No index there; another version; the first damage found, with file and offset; memory or a
    /// read refused.
    pub fn open(path: impl AsRef<Path>) -> Result<Segment, OpenError> {
        Segment::open_with(path, &OpenOptions::default())
    }

    /// Opens an index; see [`Segment::open`].
    ///
    /// # Errors
    /// As [`Segment::open`], and options that contradict each other.
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Segment, OpenError> {
        let path = path.as_ref();
        let Opened { manifest, frontier, preview, vocabulary, keys } = open::open(path)?;
        let payload = manifest.payload.then(|| Payload::open(path, &manifest)).transpose()?;
        let words = vocabulary.as_ref().map_or(0, Vocabulary::resident_bytes);
        let checksums = payload.as_ref().map_or(0, Payload::resident_bytes);
        let resident = preview.most_bytes() + keys.most_bytes() + words + checksums;
        let options = open::less(options, resident)?;
        let store = match preview.quantizer.is_exact() {
            true => None,
            false => Some(FullStore::open(path, &manifest, &options)?),
        };
        let path = path.into();
        let few = few_rows(manifest.n);
        let shared = Shared {
            path,
            manifest,
            frontier,
            preview,
            vocabulary,
            keys,
            store,
            payload,
            few,
            odd: OnceLock::new(),
        };
        Ok(Segment { shared: Arc::new(shared) })
    }

    /// How many rows it holds.
    #[expect(clippy::len_without_is_empty, reason = "an index holds at least one row")]
    pub fn len(&self) -> u64 {
        self.shared.manifest.n
    }

    /// Numbers in a vector.
    pub fn dim(&self) -> usize {
        self.shared.manifest.dim as usize
    }

    /// What it was built from and how.
    pub fn manifest(&self) -> &Manifest {
        &self.shared.manifest
    }

    /// Which list size reaches which recall, as measured when it was built.
    pub fn frontier(&self) -> &Frontier {
        &self.shared.frontier
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// How full vectors are read; `none` where the codes hold the rows exactly.
    pub fn io(&self) -> Io {
        self.shared.store.as_ref().map_or(Io::None, FullStore::io)
    }

    /// Why full vectors fill the page cache although memory is limited: the file system
    /// does not let reads pass it. None where they do, or are not meant to.
    pub fn page_cache_reason(&self) -> Option<&OpenError> {
        self.shared.store.as_ref().and_then(FullStore::refused)
    }

    /// Bytes of codes, their extra bits, graph, keys, token codes and checksums of payloads in
    /// memory; of the graph only once it is.
    pub fn resident_bytes(&self) -> u64 {
        let Shared { preview, keys, vocabulary, payload, .. } = &*self.shared;
        let vocabulary = vocabulary.as_ref().map_or(0, Vocabulary::resident_bytes);
        let checksums = payload.as_ref().map_or(0, Payload::resident_bytes);
        preview.resident_bytes() + keys.resident_bytes() + vocabulary + checksums
    }

    /// Bytes of full vectors in memory or in the page cache now. Slow: meant for reports.
    ///
    /// # Errors
    /// The operating system does not report it.
    pub fn full_store_cached_bytes(&self) -> Result<u64, OpenError> {
        self.shared.store.as_ref().map_or(Ok(0), FullStore::cached_bytes)
    }

    /// Whether the full vectors read so far were those that were published. Searches notice within
    /// a millisecond if a mapped file is written to or cut; this notices at once.
    ///
    /// # Errors
    /// It was.
    pub fn check_unchanged(&self) -> Result<(), OpenError> {
        self.shared.store.as_ref().map_or(Ok(()), FullStore::check_unchanged)
    }

    /// Those of them in memory of this process alone: loaded, or kept of earlier reads.
    pub fn full_store_own_bytes(&self) -> u64 {
        self.shared.store.as_ref().map_or(0, FullStore::own_bytes)
    }

    /// The payload of a row as JSON text; none if the index has no payloads or no such key.
    /// [`Segment::payload_of`] needs no look-up by key.
    ///
    /// # Errors
    /// Damage, or a read refused.
    pub fn payload(&self, key: u64) -> Result<Option<String>, SearchError> {
        let Some(payload) = &self.shared.payload else { return Ok(None) };
        let Some(id) = self.shared.keys.id_of(key)? else { return Ok(None) };
        Ok(Some(payload.get(id)?.0))
    }

    /// Whether a query is valid for the rows.
    ///
    /// # Errors
    /// Another dimension; a number that is not finite; all zeros under cosine; a query so long that
    /// its distances pass the range of f32.
    pub fn check_query(&self, query: Row<'_>) -> Result<(), SearchError> {
        if query.dim() != self.dim() {
            return Err(SearchError::Dim { found: query.dim(), wanted: self.dim() });
        }
        if !query.is_finite() {
            let mut wide = vec![0.0; query.dim()];
            query.widen_into(&mut wide);
            let bad = wide.iter().enumerate().find(|(_, x)| !x.is_finite());
            let (position, found) = bad.expect("a number of the query is not finite");
            return Err(SearchError::NotFinite { position, found: *found });
        }
        let metric = self.shared.manifest.metric;
        if metric.needs_direction() {
            return if query.is_zero() { Err(SearchError::ZeroQuery) } else { Ok(()) };
        }
        if is_too_long(query) {
            return Err(SearchError::TooLong);
        }
        if metric.is_product() && self.is_too_short(query) {
            return Err(SearchError::TooShort);
        }
        Ok(())
    }

    /// Whether the products of a query, not of zeros, with all rows pass under the range of f32.
    fn is_too_short(&self, query: Row<'_>) -> bool {
        let square = -Metric::InnerProduct.plain_distance(query, query);
        let longest = f64::from(self.shared.preview.quantizer.spec().largest_square);
        square > 0.0 && square * longest < MIN_SQUARE * MIN_SQUARE
    }
}

impl Shared {
    /// A second stage of its own for a thread.
    pub(crate) fn fullview(&self) -> Fullview {
        Fullview::new(self.full_vectors())
    }

    /// Where a thread gets full vectors from.
    fn full_vectors(&self) -> FullVectors {
        match &self.store {
            Some(store) => FullVectors::Store(Box::new(store.reader())),
            None => FullVectors::Codes { row: Vec::new() },
        }
    }

    /// What that stage needs of the index.
    pub(crate) fn row_origin(&self) -> RowOrigin<'_> {
        RowOrigin {
            quantizer: &self.preview.quantizer,
            codes: &self.preview.codes,
            keys: &self.keys,
            on_device: self.store.as_ref().is_some_and(|store| store.io().is_device()),
        }
    }
}
