//! Passes over the base file: rows -> codes to grow a graph over, rows -> the files of the index.

use std::path::Path;

use foveal_datasets::row_source::chunks;
use foveal_datasets::{Metric, RowSource, Rows, Values};
use rayon::prelude::*;
use xxhash_rust::xxh3::Xxh3;

use super::error::BuildError;
use crate::disk::{FileEntry, MemoryError, RamArray, Storage};
use crate::distance::MAX_SQUARE;
use crate::extremes::Extremes;
use crate::full_store::FullStoreWriter;
use crate::graph::order::inverse;
use crate::quantizer::{Encoder, Limits, Quantizer, RowFacts};
use crate::stats::Job;
use crate::vocabulary::{self, Learned};

/// Bytes of rows read, or encoded, at once.
pub(super) const CHUNK_BYTES: usize = 4 << 20;

pub(super) const NO_COSINE: &str = "is all zeros, which has no cosine";
pub(super) const TOO_LONG: &str = "is too long: its squared norm passes the range of f32";

/// Codes in the order of insertion.
pub(super) struct BuildCodes {
    /// `[n x stride]`.
    pub(super) codes: RamArray<u8>,
    /// `[n x extra_stride]`.
    pub(super) extra: RamArray<u8>,
    /// `[n]` under ip, else empty: see `CodeSpace`.
    pub(super) lifts: Vec<f32>,
}

impl BuildCodes {
    /// Rows of these in another order: number i becomes what number `order[i]` was. There are no
    /// extra bits.
    ///
    /// # Errors
    /// Memory refused.
    pub(super) fn in_order(self, order: &[u32], stride: usize) -> Result<BuildCodes, MemoryError> {
        let BuildCodes { codes: before, extra, lifts } = self;
        let mut codes = RamArray::zeroed(order.len() * stride)?;
        codes.par_chunks_exact_mut(stride).zip(order).for_each(|(to, from)| {
            to.copy_from_slice(&before[*from as usize * stride..][..stride]);
        });
        let lifts = match lifts.is_empty() {
            true => lifts,
            false => order.iter().map(|from| lifts[*from as usize]).collect(),
        };
        Ok(BuildCodes { codes, extra, lifts })
    }
}

/// Reads the base file from its first row to its last, as often as a build needs.
pub(super) struct RowPass<'a> {
    base: &'a dyn RowSource,
    metric: Metric,
    job: Job<'a>,
    facts: RowFacts,
    /// Where rows are extreme.
    limits: Limits,
    /// The rows that are, in the order of insertion, once all were encoded.
    extremes: Vec<u32>,
    /// How many rows lie as far out, these included.
    far_rows: usize,
    /// The xxh3 of the rows as the first pass saw them: each later pass must see the same.
    digest: Option<u64>,
}

impl<'a> RowPass<'a> {
    pub(super) fn new(base: &'a dyn RowSource, metric: Metric, job: Job<'a>) -> RowPass<'a> {
        RowPass {
            base,
            metric,
            job,
            facts: RowFacts::default(),
            limits: Limits::NONE,
            extremes: Vec::new(),
            far_rows: 0,
            digest: None,
        }
    }

    /// Lets the first pass look for extreme rows.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The extreme rows, in the order of insertion, once all rows were encoded.
    pub(super) fn extremes(&self) -> &[u32] {
        &self.extremes
    }

    /// How many rows lie beyond the limits; the farthest are the extreme ones.
    pub(super) fn far_rows(&self) -> usize {
        self.far_rows
    }

    pub(super) fn len(&self) -> usize {
        self.base.len()
    }

    /// The facts of all rows but the extreme ones, once they were encoded.
    pub(super) fn facts(&self) -> RowFacts {
        self.facts
    }

    /// Encodes row `rows[i]` at position `i`, for the first `coded` of all rows. The first time,
    /// those are all, and the extreme ones among them are found.
    pub(super) fn encode(
        &mut self,
        quantizer: &Quantizer,
        (rows, coded): (&[u32], usize),
    ) -> Result<BuildCodes, BuildError> {
        let (stride, extra_stride) = (quantizer.stride(), quantizer.extra_stride());
        let mut codes = RamArray::<u8>::zeroed(coded * stride)?;
        let mut extra = RamArray::<u8>::zeroed(coded * extra_stride)?;
        let positions = inverse(rows);
        let lifted = self.metric.is_product();
        let mut lifts = vec![0.0f32; if lifted { coded } else { 0 }];
        let mut records = Vec::new();
        let is_first = self.digest.is_none();
        let limits = if is_first { self.limits } else { Limits::NONE };
        let mut far = Far { limits, positions: Vec::new() };
        let (base, cosine) = (self.base, self.metric.needs_direction());
        let mut all = RowFacts::default();
        let refuse = |row: usize, what| BuildError::Row { path: base.path().into(), row, what };
        // A row that is too long takes the mean along, and every residual with it: the row itself
        // is the one to name.
        let mut endless = None;
        self.each_chunk("encoding", &mut |first, chunk| {
            if let Some(row) = chunk.first_zero().filter(|_| cosine) {
                return Err(refuse(first + row, NO_COSINE));
            }
            let facts = encode_rows(quantizer, chunk, &mut records);
            let records = records.chunks_exact(stride + extra_stride);
            for (i, (fact, record)) in facts.iter().zip(records).enumerate() {
                if fact.square > MAX_SQUARE {
                    return Err(refuse(first + i, TOO_LONG));
                }
                if !fact.residual_square.is_finite() {
                    endless = endless.or(Some(first + i));
                }
                let position = positions[first + i] as usize;
                if position >= coded {
                    continue;
                }
                codes[position * stride..][..stride].copy_from_slice(&record[..stride]);
                extra[position * extra_stride..][..extra_stride].copy_from_slice(&record[stride..]);
                if lifted {
                    lifts[position] = fact.square;
                }
                if !far.takes(position, fact) {
                    all = all.and(*fact);
                }
            }
            Ok(())
        })?;
        if let Some(row) = endless {
            return Err(refuse(row, TOO_LONG));
        }
        if is_first {
            let most = Extremes::most(coded, self.base.dim());
            self.far_rows = far.positions.len();
            let (extremes, others) = far.farthest(most);
            self.extremes = extremes.iter().map(|position| rows[*position as usize]).collect();
            all = all.and(others);
        }
        self.facts = all;
        lifts.iter_mut().for_each(|lift| *lift = (all.square - *lift).max(0.0).sqrt());
        Ok(BuildCodes { codes, extra, lifts })
    }

    /// The token records of all rows (`[n x stride]`), that of row `rows[id]` at position `id`.
    pub(super) fn encode_tokens(
        &mut self,
        learned: &Learned,
        rows: &[u32],
    ) -> Result<Vec<u8>, BuildError> {
        let stride = learned.spec.stride();
        let ids = inverse(rows);
        let mut records = vec![0; self.len() * stride];
        let mut some = Vec::new();
        self.each_chunk("encoding tokens", &mut |first, chunk| {
            some.resize(chunk.len() * stride, 0);
            vocabulary::encode_rows(learned, chunk, &mut some);
            for (i, record) in some.chunks_exact(stride).enumerate() {
                let id = ids[first + i] as usize;
                records[id * stride..][..stride].copy_from_slice(record);
            }
            Ok(())
        })?;
        Ok(records)
    }

    /// Writes the full store, row `rows[id]` for each id in order, `window` rows at a time: one
    /// pass over the base file a window.
    pub(super) fn write_rows(
        &mut self,
        storage: &dyn Storage,
        dir: &Path,
        (rows, window): (&[u32], usize),
    ) -> Result<[FileEntry; 2], BuildError> {
        let (n, dim, element) = (self.len(), self.base.dim(), self.base.element());
        let ids = inverse(rows);
        let mut store = FullStoreWriter::create(storage, dir, n as u32, dim, element)?;
        let row_bytes = dim * element.size();
        for start in (0..n).step_by(window) {
            let end = n.min(start + window);
            let mut values = Values::zeroed(element, (end - start) * dim);
            let gathered = values.bytes_mut();
            self.each_chunk("writing rows", &mut |first, chunk| {
                let chunk_rows = chunk.values().bytes().chunks_exact(row_bytes);
                for (i, row) in chunk_rows.enumerate() {
                    let id = ids[first + i] as usize;
                    if (start..end).contains(&id) {
                        gathered[(id - start) * row_bytes..][..row_bytes].copy_from_slice(row);
                    }
                }
                Ok(())
            })?;
            let gathered = Rows::new(dim, values).expect("whole rows of the base's dimension");
            store.append(&gathered)?;
        }
        Ok(store.finish()?)
    }

    /// Hands every row to `meet(first row, rows)`, in order.
    fn each_chunk(
        &mut self,
        stage: &'static str,
        meet: &mut dyn FnMut(usize, &Rows) -> Result<(), BuildError>,
    ) -> Result<(), BuildError> {
        let row_bytes = self.base.dim() * self.base.element().size();
        let mut digest = Xxh3::new();
        for chunk in chunks(self.base, (CHUNK_BYTES / row_bytes).max(1)) {
            if self.job.interrupted() {
                return Err(BuildError::Interrupted);
            }
            let (first, rows) = chunk?;
            digest.update(rows.values().bytes());
            meet(first, &rows)?;
            self.job.tell(stage, (first + rows.len()) as u64, self.base.len() as u64);
        }
        let digest = digest.digest();
        if *self.digest.get_or_insert(digest) != digest {
            return Err(BuildError::Changed { path: self.base.path().into() });
        }
        Ok(())
    }
}

/// Rows that may be extreme.
struct Far {
    limits: Limits,
    /// How many times the limits they lie away, squared, the position of the row in the order of
    /// insertion, and its facts.
    positions: Vec<(f32, u32, RowFacts)>,
}

impl Far {
    /// Takes the row at a position if it lies beyond the limits; whether it does.
    fn takes(&mut self, position: usize, facts: &RowFacts) -> bool {
        let excess = self.limits.excess(facts);
        let is_far = excess > 1.0;
        if is_far {
            self.positions.push((excess, position as u32, *facts));
        }
        is_far
    }

    /// The positions of the farthest rows, at most so many, ascending, and the facts of the others,
    /// clamped to the limits: what is beyond them must not decide how the rest is coded.
    fn farthest(mut self, most: usize) -> (Vec<u32>, RowFacts) {
        self.positions.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let others = self.positions.drain(most.min(self.positions.len())..);
        let others = others.map(|(_, _, facts)| facts).fold(RowFacts::default(), RowFacts::and);
        let mut extremes: Vec<u32> =
            self.positions.iter().map(|(_, position, _)| *position).collect();
        extremes.sort_unstable();
        (extremes, self.limits.clamp(others))
    }
}

/// Encodes all of `rows` into `records`, each with its extra bits, in parallel.
fn encode_rows(quantizer: &Quantizer, rows: &Rows, records: &mut Vec<u8>) -> Vec<RowFacts> {
    let stride = quantizer.stride();
    let whole = stride + quantizer.extra_stride();
    records.resize(rows.len() * whole, 0);
    let positions =
        records.par_chunks_mut(whole * 64).zip((0..rows.len()).into_par_iter().step_by(64));
    let encode = |encoder: &mut Encoder<'_>, (block, first): (&mut [u8], usize)| {
        let positions = block.chunks_exact_mut(whole).enumerate();
        let facts = positions
            .map(|(i, record)| encoder.encode(rows.row(first + i), record.split_at_mut(stride)));
        facts.collect::<Vec<RowFacts>>()
    };
    positions.map_init(|| Encoder::new(quantizer), encode).flatten_iter().collect()
}
