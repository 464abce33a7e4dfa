//! The order of a build: file, sample, codes, graph, order, files, index.

mod error;
mod grown;
mod key_order;
mod memory;
mod row_pass;
mod tokens;
mod trial;
mod width;

pub use error::BuildError;

use std::path::Path;
use std::time::Instant;

use foveal_datasets::row_source::chunks;
use foveal_datasets::{FileError, Metric, RowSource, Rows, Values};
use xxhash_rust::xxh3::Xxh3;

use crate::disk::{
    ArrayKind, ArrayShape, ArrayWriter, Disk, FORMAT_VERSION, FileEntry, Manifest, Measured,
    Publication, Storage, write_meta,
};
use crate::distance::{is_too_long, vanishing};
use crate::full_store::{Io, OpenOptions};
use crate::graph::adjacency::Adjacency;
use crate::graph::entry_points_of;
use crate::graph::grow::GrowParams;
use crate::graph::prune::PruneRule;
use crate::key_table::KeyTable;
use crate::params::{BuildParams, check_rows};
use crate::payload::{PayloadSource, write_payloads};
use crate::quantizer::{Quantizer, TRIED_QUERIES};
use crate::segment::Meta;
use crate::segment::Segment;
use crate::stats::Job;
use crate::vocabulary::VocabularySpec;
use grown::{Grown, Order};
use key_order::{by_hash, read_in_order};
use memory::BuildMemory;
use row_pass::{CHUNK_BYTES, NO_COSINE, RowPass, TOO_LONG};
use tokens::TokenCodes;
use width::Width;

/// Rows that train the quantizer.
const SAMPLE_ROWS: usize = 20_000;
/// Most bytes of the sample.
const SAMPLE_BYTES: usize = 32 << 20;

/// What an index is built from.
#[derive(Clone, Copy, Debug)]
pub struct BuildInput<'a> {
    /// The vectors, `[n x dim]`.
    pub base: &'a dyn RowSource,
    /// What the rows are called.
    pub keys: Keys<'a>,
    /// A JSON object for each row of the base.
    pub payload: Option<&'a dyn PayloadSource>,
    /// Sample queries, `[any x dim]`, to calibrate with; without them rows of the base serve.
    pub learn: Option<&'a dyn RowSource>,
    /// Whether the last number of a row is the bias of its token, and that of a hidden state 1.
    pub bias: bool,
}

impl<'a> BuildInput<'a> {
    /// The rows alone, called by their numbers.
    pub fn of(base: &'a dyn RowSource) -> BuildInput<'a> {
        BuildInput { base, keys: Keys::From(0), payload: None, learn: None, bias: false }
    }
}

/// The caller's names for the rows.
#[derive(Clone, Copy, Debug)]
pub enum Keys<'a> {
    /// Row `i` is called `first + i`.
    From(u64),
    /// Row `i` is called `keys[i]`; no two alike.
    List(&'a [u64]),
}

impl Keys<'_> {
    /// What a row is called.
    fn of(self, row: u32) -> u64 {
        match self {
            Keys::From(first) => first + u64::from(row),
            Keys::List(keys) => keys[row as usize],
        }
    }
}

/// What was built, and what it took.
#[derive(Clone, Debug)]
pub struct BuildReport {
    /// The index.
    pub manifest: Manifest,
    /// Seconds and memory.
    pub measured: Measured,
    /// Bytes of memory that opening it takes, full vectors left out.
    pub resident_bytes: u64,
    /// Bytes of all its files.
    pub disk_bytes: u64,
    /// Nodes that growing left unreachable and repair attached.
    pub repaired: u64,
    /// What the caller should know, a sentence each: rows that lie apart from all others, codes
    /// that do not tell rows apart, a recall or a precision of decodes below 0.95 at the default
    /// effort.
    pub warnings: Vec<String>,
}

/// Builds the index of `input` in the new directory `out`.
///
/// The same input, seed and parameters give the same files, whatever the number of threads. The
/// directory appears when it is complete and on the device; until then everything lies in a hidden
/// sibling. `O(n log n)` distances; memory as [`BuildParams::memory`] limits it and
/// [`Measured::predicted_peak_bytes`] tells.
///
/// # Errors
/// Parameters out of range; input that cannot be indexed, with file and row; an output that exists
/// or is being built; memory, threads or disk refused; an interrupt.
pub fn build(
    input: &BuildInput<'_>,
    out: &Path,
    params: &BuildParams,
    job: Job<'_>,
) -> Result<BuildReport, BuildError> {
    build_on(&Disk, input, out, params, job)
}

/// As [`build`], on another storage.
pub(crate) fn build_on(
    storage: &dyn Storage,
    input: &BuildInput<'_>,
    out: &Path,
    params: &BuildParams,
    job: Job<'_>,
) -> Result<BuildReport, BuildError> {
    let started = Instant::now();
    params.check()?;
    check_not_empty(input)?;
    let mut memory = BuildMemory::plan(input, params, width::first_of(params))?;
    // First what costs nothing, then what reads files, then the work.
    check_learn_dim(input)?;
    let publication = Publication::begin(storage, out)?;
    let (payload_digest, learn_digest) = check_input(input, params, job)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(params.threads).build()?;
    let by_hash = pool.install(|| by_hash(input.keys, input.base.len(), params.seed));
    let sample = sample(input.base, &by_hash, params.metric)?;
    let mut pass = RowPass::new(input.base, params.metric, job);
    let width = pool.install(|| Width::choose(input, sample, params))?;
    memory = width.memory.unwrap_or(memory);
    let bits = width.width.bits();
    let order = Order { input, params, job };
    let grown = pool.install(|| Grown::over(&mut pass, order, (width, by_hash)))?;
    let mut files = Files { storage, dir: publication.dir(), entries: Vec::new() };
    files.write_graph(&grown.graph)?;
    let entry_points = entry_points_of(grown.graph.len() as u32);
    drop(grown.graph);
    let coded = &grown.old[..grown.extremes.first() as usize];
    files.write_codes(&grown.quantizer, (&grown.codes, &grown.extra), coded)?;
    drop((grown.codes, grown.extra));
    let vocabulary = pool.install(|| files.write_vocabulary(&mut pass, order, &grown.rows))?;
    let window = memory.window_rows(input.base);
    files.entries.extend(pass.write_rows(files.storage, files.dir, (&grown.rows, window))?);
    pool.install(|| files.write_keys(input.keys, &grown.rows))?;
    if let Some(payload) = input.payload.zip(payload_digest) {
        let to = (files.storage, files.dir);
        files.entries.extend(write_payloads(payload, to, &grown.rows, job)?);
    }
    check_learn_unchanged(order, learn_digest)?;
    let quantizer = grown.quantizer.spec().clone();
    let extreme_rows = grown.extremes.ids().len() as u32;
    let (frontier, extremes) = (grown.frontier, grown.extremes.into_numbers());
    files.write_meta(&Meta { entry_points, quantizer, extremes, frontier, vocabulary })?;
    drop((grown.rows, grown.old));
    let manifest = files.write_manifest(input, (params, bits, extreme_rows))?;
    open_once(publication.dir(), job)?;
    let tried = || pool.install(|| trial::measure(publication.dir(), input, job));
    let decodes = manifest.tokens.then(tried).transpose()?.flatten();
    let mut warnings = grown.warnings;
    warnings.extend(decodes.iter().flat_map(trial::warnings));
    let measured = Measured {
        build_seconds: started.elapsed().as_secs_f64(),
        predicted_peak_bytes: memory.peak(),
        peak_rss_bytes: memory::peak_rss_bytes(),
        decodes,
    };
    measured.write(storage, publication.dir())?;
    publication.commit()?;
    Ok(BuildReport {
        resident_bytes: manifest.memory().at_open,
        disk_bytes: manifest.files.iter().map(|file| file.bytes).sum(),
        repaired: grown.repaired,
        warnings,
        manifest,
        measured,
    })
}

/// The most memory that a build of `input` takes, in bytes, as far as it is known before.
///
/// # Errors
/// More is needed than `params.memory` allows, or without it than is free.
pub fn predicted_peak_bytes(
    input: &BuildInput<'_>,
    params: &BuildParams,
) -> Result<u64, BuildError> {
    Ok(BuildMemory::plan(input, params, width::first_of(params))?.peak())
}

/// Opens the index in `dir` as whoever searches it will, with all that waits for a first use: what
/// cannot be opened is never published.
fn open_once(dir: &Path, job: Job<'_>) -> Result<(), BuildError> {
    job.tell("opening", 0, 1);
    if job.interrupted() {
        return Err(BuildError::Interrupted);
    }
    let options = OpenOptions { io: Io::Pread, ..OpenOptions::default() };
    let index = Segment::open_with(dir, &options)?;
    index.shared.preview.graph.load()?;
    index.shared.keys.order()?;
    Ok(())
}

/// Refuses no rows: files always hold some, rows in memory may not.
fn check_not_empty(input: &BuildInput<'_>) -> Result<(), BuildError> {
    let mut sources = [Some(input.base), input.learn].into_iter().flatten();
    let Some(rows) = sources.find(|rows| rows.is_empty()) else { return Ok(()) };
    Err(FileError::Empty { path: rows.path().into() }.into())
}

/// The rows that train the quantizer.
fn sample(base: &dyn RowSource, by_hash: &[u32], metric: Metric) -> Result<Rows, BuildError> {
    let row_bytes = base.dim() * base.element().size();
    let count = SAMPLE_ROWS.min(SAMPLE_BYTES / row_bytes).max(1000);
    let sample = read_in_order(base, &by_hash[..count.min(by_hash.len())])?;
    match vanishing(&sample, metric) {
        Some(square) => Err(BuildError::TooSmall { path: base.path().into(), square }),
        None => Ok(sample),
    }
}

/// Some rows of others, in the order given.
fn picked(rows: &Rows, order: &[usize]) -> Rows {
    let row_bytes = rows.row_bytes();
    let mut values = Values::zeroed(rows.element(), order.len() * rows.dim());
    let targets = values.bytes_mut().chunks_exact_mut(row_bytes).zip(order);
    for (place, row) in targets {
        place.copy_from_slice(&rows.values().bytes()[row * row_bytes..][..row_bytes]);
    }
    Rows::new(rows.dim(), values).expect("whole rows of their dimension")
}

/// What the parameters of a build say about growing.
fn grow_params(params: &BuildParams) -> GrowParams {
    let rule = PruneRule { max_degree: params.max_degree as usize, alpha: params.alpha };
    GrowParams { rule, list_size: params.list_size as usize }
}

/// Reads what goes along with the rows; the digests of payloads and samples.
fn check_input(
    input: &BuildInput<'_>,
    params: &BuildParams,
    job: Job<'_>,
) -> Result<(Option<u64>, Option<u64>), BuildError> {
    check_keys(input)?;
    let learn_digest = check_learn(input, params.metric, job)?;
    let check = |payload: &dyn PayloadSource| payload.check(input.base.len() as u64, job);
    Ok((input.payload.map(check).transpose()?, learn_digest))
}

fn check_keys(input: &BuildInput<'_>) -> Result<(), BuildError> {
    let n = input.base.len();
    check_rows(n)?;
    let refuse = |what: String| Err(BuildError::Keys { what });
    match input.keys {
        Keys::From(first) if first.checked_add(n as u64 - 1).is_none() => {
            refuse(format!("{n} rows from {first} on pass the largest key, {}", u64::MAX))
        }
        Keys::List(keys) if keys.len() != n => {
            refuse(format!("{} keys; wanted {n}, one a row", keys.len()))
        }
        Keys::List(keys) => {
            let mut sorted = keys.to_vec();
            sorted.sort_unstable();
            match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                Some(pair) => refuse(format!("{} stands for two rows; wanted one", pair[0])),
                None => Ok(()),
            }
        }
        Keys::From(_) => Ok(()),
    }
}

/// Whether samples have the dimension of the rows.
fn check_learn_dim(input: &BuildInput<'_>) -> Result<(), BuildError> {
    match input.learn {
        Some(learn) if learn.dim() != input.base.dim() => {
            let (found, wanted) = (learn.dim(), input.base.dim());
            Err(BuildError::LearnDim { path: learn.path().into(), found, wanted })
        }
        _ => Ok(()),
    }
}

/// Whether every sample query, or hidden state, is valid for an index. Goes over them once, and
/// tells their digest.
fn check_learn(
    input: &BuildInput<'_>,
    metric: Metric,
    job: Job<'_>,
) -> Result<Option<u64>, BuildError> {
    let Some(learn) = input.learn else { return Ok(None) };
    let mut digest = Xxh3::new();
    let row_bytes = learn.dim() * learn.element().size();
    for chunk in chunks(learn, (CHUNK_BYTES / row_bytes).max(1)) {
        let (first, rows) = chunk?;
        if job.interrupted() {
            return Err(BuildError::Interrupted);
        }
        job.tell("checking samples", first as u64, learn.len() as u64);
        let refuse = |row: usize, what| {
            Err(BuildError::Row { path: learn.path().into(), row: first + row, what })
        };
        let cosine = metric.needs_direction();
        if let Some(row) = rows.first_zero().filter(|_| cosine) {
            return refuse(row, NO_COSINE);
        }
        if let Some(row) = rows.iter().position(is_too_long).filter(|_| !cosine) {
            return refuse(row, TOO_LONG);
        }
        digest.update(rows.values().bytes());
    }
    Ok(Some(digest.digest()))
}

/// Whether the samples are still those whose digest was taken.
fn check_learn_unchanged(
    Order { input, params, job }: Order<'_>,
    digest: Option<u64>,
) -> Result<(), BuildError> {
    match input.learn {
        Some(learn) if check_learn(input, params.metric, job)? != digest => {
            Err(BuildError::Changed { path: learn.path().into() })
        }
        _ => Ok(()),
    }
}

/// The files of an index that is being written.
struct Files<'a> {
    storage: &'a dyn Storage,
    dir: &'a Path,
    entries: Vec<FileEntry>,
}

impl Files<'_> {
    fn write_graph(&mut self, graph: &Adjacency) -> Result<(), BuildError> {
        let shape = ArrayShape::packed(graph.len() as u64, graph.stride() as u32 * 4);
        let mut writer = ArrayWriter::create(self.storage, self.dir, ArrayKind::Graph, shape)?;
        writer.append(bytemuck::cast_slice(graph.lists()))?;
        self.entries.extend(writer.finish()?);
        Ok(())
    }

    /// Writes codes and extra bits, those at position `old[id]` for each id in order.
    fn write_codes(
        &mut self,
        quantizer: &Quantizer,
        (codes, extra): (&[u8], &[u8]),
        old: &[u32],
    ) -> Result<(), BuildError> {
        self.write_records(ArrayKind::Codes, codes, (old, quantizer.stride()))?;
        match quantizer.extra_stride() {
            0 => Ok(()),
            extra_stride => self.write_records(ArrayKind::Extra, extra, (old, extra_stride)),
        }
    }

    /// Writes the record at position `old[id]` for each id in order.
    fn write_records(
        &mut self,
        kind: ArrayKind,
        codes: &[u8],
        (old, stride): (&[u32], usize),
    ) -> Result<(), BuildError> {
        let shape = ArrayShape::packed(old.len() as u64, stride as u32);
        let mut writer = ArrayWriter::create(self.storage, self.dir, kind, shape)?;
        let mut records = Vec::with_capacity(CHUNK_BYTES + stride);
        for some in old.chunks((CHUNK_BYTES / stride).max(1)) {
            records.clear();
            for place in some {
                records.extend_from_slice(&codes[*place as usize * stride..][..stride]);
            }
            writer.append(&records)?;
        }
        self.entries.extend(writer.finish()?);
        Ok(())
    }

    /// Learns token codes and writes them, where they are wanted.
    fn write_vocabulary(
        &mut self,
        pass: &mut RowPass<'_>,
        Order { input, params, job }: Order<'_>,
        rows: &[u32],
    ) -> Result<Option<VocabularySpec>, BuildError> {
        if !tokens::wanted(input, params) {
            return Ok(None);
        }
        let TokenCodes { spec, records } = tokens::encode(pass, input, rows, (params, job))?;
        let stride = spec.stride();
        let shape = ArrayShape::packed((records.len() / stride) as u64, stride as u32);
        let mut writer = ArrayWriter::create(self.storage, self.dir, ArrayKind::Tokens, shape)?;
        writer.append(&records)?;
        self.entries.extend(writer.finish()?);
        Ok(Some(spec))
    }

    fn write_keys(&mut self, keys: Keys<'_>, rows: &[u32]) -> Result<(), BuildError> {
        let key = |id: u32| keys.of(rows[id as usize]);
        let entries = KeyTable::write(self.storage, self.dir, rows.len() as u32, key)?;
        self.entries.extend(entries);
        Ok(())
    }

    fn write_meta(&mut self, meta: &Meta) -> Result<(), BuildError> {
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(meta)
            .expect("an archive of plain fields fits memory");
        self.entries.push(write_meta(self.storage, self.dir, &bytes)?);
        Ok(())
    }

    fn write_manifest(
        self,
        input: &BuildInput<'_>,
        (params, bits, extremes): (&BuildParams, u8, u32),
    ) -> Result<Manifest, BuildError> {
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            n: input.base.len() as u64,
            dim: input.base.dim() as u32,
            metric: params.metric,
            element: input.base.element(),
            bits,
            max_degree: params.max_degree,
            list_size: params.list_size,
            alpha: params.alpha,
            seed: params.seed,
            payload: input.payload.is_some(),
            tokens: self.entries.iter().any(|file| file.name == ArrayKind::Tokens.name()),
            bias: input.bias,
            extremes,
            files: self.entries,
            digest: String::new(),
            checksum: String::new(),
        };
        let manifest = manifest.seal()?;
        manifest.write(self.storage, self.dir)?;
        Ok(manifest)
    }
}
