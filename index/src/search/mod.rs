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
use crate::full_store::{FullStore, Io, OpenOptions, ReadError};
use crate::fullview::{Fullview, Rerank, Reranked, RowOrigin, RowSource};
use crate::key_table::KeyTable;
use crate::neighbor::Neighbor;
use crate::open::{self, Opened};
use crate::params::{SearchParams, out_of_range};
use crate::payload::Payload;
use crate::preview::{Preview, PreviewSlot, STEPS_A_LOOK, walk};
use crate::stats::{QueryStats, Stop};
use crate::vocabulary::Vocabulary;

/// The most queries that one thread interleaves.
const MAX_IN_FLIGHT: usize = 64;
/// Candidates beyond the k best that are expanded before rows are asked for.
const SETTLED: usize = 10;
/// Most of those that walk; the others wait for rows by io_uring.
const MAX_WALKING: usize = 4;

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
    /// How many take turns: while one waits for memory, another computes. At most four walk at a
    /// time; more are of use with io_uring, whose reads take longer than a walk.
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
        let words = vocabulary.as_ref().map_or(0, Vocabulary::resident_bytes);
        let resident = preview.resident_bytes() + keys.resident_bytes() + words;
        let options = open::less(options, resident)?;
        let store = match preview.quantizer.is_exact() {
            true => None,
            false => Some(FullStore::open(path, &manifest, &options)?),
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

    /// Why full vectors take room in the page cache although memory is limited: the file system
    /// does not let reads pass it. None where they do, or are not meant to.
    pub fn page_cache_reason(&self) -> Option<&OpenError> {
        self.shared.store.as_ref().and_then(FullStore::refused)
    }

    /// Bytes of codes, their finer bits, graph, keys and token codes in memory.
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
        Searcher { index: self.clone(), slots: Vec::new() }
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

/// Answers queries, one thread at a time; owns what they need, so that none of it is allocated
/// anew.
pub struct Searcher {
    index: Index,
    slots: Vec<Slot>,
}

/// One query in flight.
struct Slot {
    stage: Stage,
    preview: PreviewSlot,
    exact: ExactQuery,
    fullview: Fullview,
    stats: QueryStats,
    row: usize,
    started: Instant,
    /// When the walk was over.
    walked: Instant,
}

/// How far a query has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Walking,
    Ranking,
}

/// What each query of a call is answered with.
#[derive(Clone, Copy)]
struct Effort<'a> {
    params: &'a SearchParams,
    reach: Option<f32>,
    stop: &'a Stop<'a>,
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
        let Searcher { index, slots } = self;
        let (slot, preview) = (&mut slots[0], &index.shared.preview);
        let effort = Effort { params, reach: index.shared.frontier.reach(params.list_size), stop };
        slot.begin(preview, (0, query), effort);
        walk(stop, || slot.hop(index, effort))?;
        slot.walked(index, effort);
        loop {
            if let Some(answer) = slot.rank(index, effort, true)? {
                return Ok(answer);
            }
        }
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
        let in_flight = batch.in_flight.min(batch.rows.len());
        self.make_slots(in_flight);
        let Searcher { index, slots } = self;
        let slots = &mut slots[..in_flight];
        let shared = &index.shared;
        let reach = shared.frontier.reach(batch.params.list_size);
        let effort = Effort { params: &batch.params, reach, stop: &batch.stop };
        let mut waiting = batch.rows.clone();
        let (mut walking, mut ranking, mut turns) = (0, 0, 0);
        // Nothing is left to do but to wait for a device: a whole turn changed nothing.
        let mut wait = false;
        loop {
            let mut idle = walking == 0;
            for slot in &mut *slots {
                if slot.stage == Stage::Walking && !slot.hop(index, effort)? {
                    slot.walked(index, effort);
                    (walking, ranking) = (walking - 1, ranking + 1);
                }
                if slot.stage == Stage::Ranking {
                    let answer = slot.rank(index, effort, std::mem::take(&mut wait))?;
                    if let Some(answer) = answer {
                        (ranking, idle) = (ranking - 1, false);
                        sink(slot.row, answer);
                    }
                }
                if slot.stage == Stage::Idle
                    && walking < MAX_WALKING
                    && let Some(row) = waiting.next()
                {
                    slot.begin(&shared.preview, (row, queries.row(row)), effort);
                    (walking, idle) = (walking + 1, false);
                }
            }
            if walking + ranking == 0 {
                return Ok(());
            }
            wait = idle;
            turns += 1;
            if turns % STEPS_A_LOOK == 0
                && let Some(why) = batch.stop.now()
            {
                return Err(SearchError::Stopped(why));
            }
        }
    }

    fn make_slots(&mut self, count: usize) {
        let manifest = &self.index.shared.manifest;
        while self.slots.len() < count {
            self.slots.push(Slot {
                stage: Stage::Idle,
                preview: PreviewSlot::new(),
                exact: ExactQuery::new(manifest.metric, manifest.element),
                fullview: self.index.shared.fullview(),
                stats: QueryStats::default(),
                row: 0,
                started: Instant::now(),
                walked: Instant::now(),
            });
        }
        self.slots.iter_mut().for_each(|slot| slot.stage = Stage::Idle);
    }
}

impl Slot {
    fn begin(&mut self, preview: &Preview, (row, query): (usize, Row<'_>), effort: Effort<'_>) {
        self.started = Instant::now();
        (self.row, self.stage) = (row, Stage::Walking);
        self.stats = QueryStats::default();
        self.exact.set(query);
        let Effort { params, reach, .. } = effort;
        preview.begin(&mut self.preview, query, (params.list_size, params.k), reach);
        self.fullview.begin_query();
    }

    /// One hop of the walk; false when it is over. Once the best candidates hardly change any more,
    /// the first rows are asked for: they arrive while it goes on.
    #[inline(always)]
    fn hop(&mut self, index: &Index, effort: Effort<'_>) -> Result<bool, ReadError> {
        let goes_on = index.shared.preview.step(&mut self.preview);
        let settled = self.preview.settled() >= effort.params.k as usize + SETTLED;
        if settled && goes_on && !self.fullview.is_ahead() {
            let origin = index.shared.row_origin();
            let best = self.preview.best();
            self.fullview.read_ahead(&origin, best, effort.params, &mut self.stats)?;
        }
        Ok(goes_on)
    }

    /// The walk is over: its candidates are to be ranked.
    fn walked(&mut self, index: &Index, effort: Effort<'_>) {
        let preview = &index.shared.preview;
        (self.stats.distances, self.stats.hops) = self.preview.counts();
        preview.candidates(&mut self.preview);
        (self.walked, self.stage) = (Instant::now(), Stage::Ranking);
        let ask = ask(&self.preview, effort, false);
        self.fullview.begin(&index.shared.row_origin(), &ask);
    }

    /// The answer, once all rows that it takes have been read.
    fn rank(
        &mut self,
        index: &Index,
        effort: Effort<'_>,
        wait: bool,
    ) -> Result<Option<Answer>, SearchError> {
        let Shared { preview, manifest, .. } = &*index.shared;
        let origin = index.shared.row_origin();
        let ask = ask(&self.preview, effort, wait);
        let ranked = self.fullview.rank(&origin, &mut self.exact, &ask, &mut self.stats)?;
        let Some(Reranked { neighbors, partial, unread }) = ranked else { return Ok(None) };
        let certified = match unread.map(|estimate| preview.lower_bound(&self.preview, estimate)) {
            Some(bound) => neighbors.partition_point(|neighbor| neighbor.distance < bound),
            None => neighbors.len(),
        };
        let end = Instant::now();
        self.stats.preview_nanos = (self.walked - self.started).as_nanos() as u64;
        self.stats.fullview_nanos = (end - self.walked).as_nanos() as u64;
        self.stage = Stage::Idle;
        Ok(Some(Answer {
            neighbors,
            exhausted: manifest.n < u64::from(effort.params.k),
            partial,
            certified: certified as u32,
            nanos: (end - self.started).as_nanos() as u64,
            stats: self.stats,
        }))
    }
}

fn ask<'a>(
    preview: &'a PreviewSlot,
    Effort { params, stop, .. }: Effort<'a>,
    wait: bool,
) -> Rerank<'a> {
    Rerank { candidates: preview.candidates(), params, stop, wait }
}
