//! The order of a query: preview, fullview, answer.

mod error;

pub use error::SearchError;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use foveal_datasets::{Metric, Row, Rows};

use crate::calibrate::Frontier;
use crate::disk::{Manifest, OpenError};
use crate::distance::{ExactQuery, is_too_long};
use crate::full_store::{FullStore, Io, OpenOptions};
use crate::fullview::{Fullview, Rerank, Reranked, RowOrigin, RowSource};
use crate::key_table::KeyTable;
use crate::neighbor::Neighbor;
use crate::open::{self, Opened};
use crate::params::{SearchParams, out_of_range};
use crate::payload::Payload;
use crate::preview::{Preview, PreviewSlot, STEPS_A_LOOK};
use crate::stats::{QueryStats, Stop};
use crate::vocabulary::Vocabulary;

/// The most queries that one thread interleaves.
const MAX_IN_FLIGHT: usize = 64;

/// An index, open for queries. Cheap to clone; shared between threads.
#[derive(Clone)]
pub struct Index {
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
    payload: Option<Payload>,
    /// `[n]`: keys and their ids, sorted; made when first asked for.
    pub(crate) ids: OnceLock<Vec<(u64, u32)>>,
}

/// The answer to one query.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// At most k, nearest first; equal distances smaller key first.
    pub neighbors: Vec<Neighbor>,
    /// Whether the index holds fewer than k rows.
    pub exhausted: bool,
    /// Whether `max_reads` left candidates unread.
    pub partial: bool,
    /// How many of the leading neighbors are proved to precede every other candidate of preview,
    /// by a bound that never fails: those that were not read included.
    pub certified: u32,
    /// From the start of the query to its end, in nanoseconds.
    pub nanos: u64,
    /// What the query cost.
    pub stats: QueryStats,
}

/// Queries to be answered on one thread.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// How each of them is answered.
    pub params: SearchParams,
    /// How many take turns: while one waits for memory, another computes.
    pub in_flight: usize,
    /// Which of the queries.
    pub rows: Range<usize>,
    /// When to give up.
    pub stop: Stop<'a>,
}

impl Index {
    /// Opens an index with the defaults: full vectors mapped.
    ///
    /// Codes, graph and keys are read in order into memory and verified on the way.
    ///
    /// # Errors
    /// No index there; another version; the first damage found, with file and offset; memory or a
    /// read refused.
    pub fn open(path: impl AsRef<Path>) -> Result<Index, OpenError> {
        Index::open_with(path, &OpenOptions::default())
    }

    /// Opens an index; see [`Index::open`].
    ///
    /// # Errors
    /// As [`Index::open`], and options that contradict each other.
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Index, OpenError> {
        let path = path.as_ref();
        let Opened { manifest, frontier, preview, vocabulary, keys } = open::open(path)?;
        let store = if preview.quantizer.is_exact() {
            None
        } else {
            let vocabulary = vocabulary.as_ref().map_or(0, Vocabulary::resident_bytes);
            let resident = preview.resident_bytes() + keys.resident_bytes() + vocabulary;
            Some(FullStore::open(path, &manifest, &less(options, resident)?)?)
        };
        let payload = manifest.payload.then(|| Payload::open(path, &manifest)).transpose()?;
        let path = path.into();
        let shared = Shared {
            path,
            manifest,
            frontier,
            preview,
            vocabulary,
            keys,
            store,
            payload,
            ids: OnceLock::new(),
        };
        Ok(Index { shared: Arc::new(shared) })
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

    /// Bytes of codes, graph, keys and token codes in memory.
    pub fn resident_bytes(&self) -> u64 {
        let vocabulary = self.shared.vocabulary.as_ref().map_or(0, Vocabulary::resident_bytes);
        self.shared.preview.resident_bytes() + self.shared.keys.resident_bytes() + vocabulary
    }

    /// Bytes of full vectors in memory or in the page cache now. Slow: meant for reports.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn full_store_cached_bytes(&self) -> Result<u64, OpenError> {
        self.shared.store.as_ref().map_or(Ok(0), FullStore::cached_bytes)
    }

    /// A searcher of its own for a thread.
    pub fn searcher(&self) -> Searcher {
        let fullview = self.shared.fullview();
        Searcher { index: self.clone(), slots: Vec::new(), fullview }
    }

    /// The payload of a row as JSON text; none if the index has no payloads or no such key. Scans
    /// the keys: meant for the few rows of an answer.
    ///
    /// # Errors
    /// Damage, or a read refused.
    pub fn payload(&self, key: u64) -> Result<Option<String>, SearchError> {
        let Some(payload) = &self.shared.payload else { return Ok(None) };
        let Some(id) = self.shared.keys.id_of(key) else { return Ok(None) };
        Ok(Some(payload.get(id)?))
    }

    fn check(&self, query: Row<'_>, params: &SearchParams) -> Result<(), SearchError> {
        params.check()?;
        self.check_query(query)
    }

    /// Whether a query can be asked of the rows.
    pub(crate) fn check_query(&self, query: Row<'_>) -> Result<(), SearchError> {
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
        match self.shared.manifest.metric {
            Metric::Cosine if query.is_zero() => Err(SearchError::ZeroQuery),
            Metric::L2 | Metric::InnerProduct if is_too_long(query) => Err(SearchError::TooLong),
            _ => Ok(()),
        }
    }
}

impl Shared {
    /// A second stage of its own for a thread.
    pub(crate) fn fullview(&self) -> Fullview {
        Fullview::new(match &self.store {
            Some(store) => RowSource::Store(Box::new(store.reader())),
            None => RowSource::Codes { row: Vec::new() },
        })
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

/// The options for the full store, once `resident` bytes of the memory allowed are taken.
fn less(options: &OpenOptions, resident: u64) -> Result<OpenOptions, OpenError> {
    let left = |allowed: u64| {
        allowed.checked_sub(resident).ok_or_else(|| OpenError::Usage {
            what: format!("preview takes {resident} bytes of memory; wanted at most {allowed}"),
        })
    };
    Ok(OpenOptions { memory: options.memory.map(left).transpose()?, ..*options })
}

/// Answers queries, one thread at a time; owns what they need, so that none of it is allocated
/// anew.
pub struct Searcher {
    index: Index,
    slots: Vec<Slot>,
    fullview: Fullview,
}

/// One query in flight.
struct Slot {
    preview: PreviewSlot,
    exact: ExactQuery,
    started: Instant,
    row: usize,
    busy: bool,
}

impl Searcher {
    /// The nearest rows to a query.
    ///
    /// # Errors
    /// Parameters out of range; a query of another dimension, not finite, or all zeros under
    /// cosine; a full vector that cannot be read.
    pub fn search<'q>(
        &mut self,
        query: impl Into<Row<'q>>,
        params: &SearchParams,
    ) -> Result<Answer, SearchError> {
        self.search_until(query, params, &Stop::default())
    }

    /// The nearest rows to a query, unless `stop` comes first; it is looked at every few hops and
    /// before each read.
    ///
    /// # Errors
    /// As [`Searcher::search`], and the stop.
    pub fn search_until<'q>(
        &mut self,
        query: impl Into<Row<'q>>,
        params: &SearchParams,
        stop: &Stop<'_>,
    ) -> Result<Answer, SearchError> {
        let query = query.into();
        self.index.check(query, params)?;
        self.make_slots(1);
        let Searcher { index, slots, fullview } = self;
        let slot = &mut slots[0];
        let reach = index.shared.frontier.reach(params.list_size);
        slot.begin(&index.shared.preview, (0, query), (params, reach));
        index.shared.preview.walk(&mut slot.preview, stop).map_err(SearchError::Stopped)?;
        slot.finish(index, fullview, params, stop)
    }

    /// Answers the rows `batch.rows` of `queries`, several at a time on this thread;
    /// `sink(i, answer)` gets the answer to row i, in any order of i.
    ///
    /// # Errors
    /// As [`Searcher::search_until`], and `in_flight` of 0 or above 64. Nothing is searched before
    /// every query is checked; an error later leaves the rest unanswered.
    ///
    /// # Panics
    /// If `batch.rows` is not within `queries`.
    pub fn search_batch(
        &mut self,
        queries: &Rows,
        batch: &Batch<'_>,
        sink: &mut dyn FnMut(usize, Answer),
    ) -> Result<(), SearchError> {
        if !(1..=MAX_IN_FLIGHT).contains(&batch.in_flight) {
            let wanted = format!("1 to {MAX_IN_FLIGHT}");
            return Err(out_of_range("in_flight", batch.in_flight, wanted).into());
        }
        for row in batch.rows.clone() {
            self.index.check(queries.row(row), &batch.params)?;
        }
        self.make_slots(batch.in_flight);
        let Searcher { index, slots, fullview } = self;
        let slots = &mut slots[..batch.in_flight];
        let preview = &index.shared.preview;
        let reach = index.shared.frontier.reach(batch.params.list_size);
        let effort = (&batch.params, reach);
        let mut waiting = batch.rows.clone();
        for (slot, row) in slots.iter_mut().zip(&mut waiting) {
            slot.begin(preview, (row, queries.row(row)), effort);
        }
        let mut turns = 0;
        while slots.iter().any(|slot| slot.busy) {
            turns += 1;
            if turns % STEPS_A_LOOK == 0
                && let Some(why) = batch.stop.now()
            {
                slots.iter_mut().for_each(|slot| slot.busy = false);
                return Err(SearchError::Stopped(why));
            }
            for slot in slots.iter_mut().filter(|slot| slot.busy) {
                if preview.step(&mut slot.preview) {
                    continue;
                }
                slot.busy = false;
                let row = slot.row;
                sink(row, slot.finish(index, fullview, &batch.params, &batch.stop)?);
                if let Some(row) = waiting.next() {
                    slot.begin(preview, (row, queries.row(row)), effort);
                }
            }
        }
        Ok(())
    }

    fn make_slots(&mut self, count: usize) {
        let manifest = &self.index.shared.manifest;
        while self.slots.len() < count {
            self.slots.push(Slot {
                preview: PreviewSlot::new(),
                exact: ExactQuery::new(manifest.metric, manifest.element),
                started: Instant::now(),
                row: 0,
                busy: false,
            });
        }
        self.slots.iter_mut().for_each(|slot| slot.busy = false);
    }
}

impl Slot {
    fn begin(
        &mut self,
        preview: &Preview,
        query: (usize, Row<'_>),
        (params, reach): (&SearchParams, Option<f32>),
    ) {
        self.started = Instant::now();
        (self.row, self.busy) = (query.0, true);
        self.exact.set(query.1);
        preview.begin(&mut self.preview, query.1, (params.list_size, params.k), reach);
    }

    /// From the end of the walk to the answer.
    fn finish(
        &mut self,
        index: &Index,
        fullview: &mut Fullview,
        params: &SearchParams,
        stop: &Stop<'_>,
    ) -> Result<Answer, SearchError> {
        let Shared { preview, store, manifest, .. } = &*index.shared;
        let mut stats = QueryStats::default();
        (stats.distances, stats.hops) = self.preview.counts();
        // Exact codes cost no read: nothing is left unranked.
        let most = if store.is_some() { params.rerank_size } else { params.list_size };
        let beyond = preview.candidate_at(&self.preview, most as usize);
        let candidates = preview.candidates(&mut self.preview, most as usize);
        let between = Instant::now();
        let origin = index.shared.row_origin();
        let ask = Rerank { candidates, beyond, params, stop };
        let reranked = fullview.rerank(&origin, &mut self.exact, &ask, &mut stats);
        let Reranked { neighbors, partial, unread } = reranked?;
        let certified = match unread.map(|estimate| preview.lower_bound(&self.preview, estimate)) {
            Some(bound) => neighbors.partition_point(|neighbor| neighbor.distance < bound),
            None => neighbors.len(),
        };
        let end = Instant::now();
        stats.preview_nanos = (between - self.started).as_nanos() as u64;
        stats.fullview_nanos = (end - between).as_nanos() as u64;
        Ok(Answer {
            neighbors,
            exhausted: manifest.n < u64::from(params.k),
            partial,
            certified: certified as u32,
            nanos: (end - self.started).as_nanos() as u64,
            stats,
        })
    }
}
