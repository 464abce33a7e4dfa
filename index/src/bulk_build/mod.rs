//! The order of a build: file, sample, codes, graph, order, files, index.

mod error;
mod memory;
mod row_pass;
mod tokens;

pub use error::BuildError;

use std::path::Path;
use std::time::Instant;

use foveal_datasets::synthetic::Seeded;
use foveal_datasets::{Metric, Rows, VectorFile};

use crate::calibrate::{self, Frontier, Subject};
use crate::disk::{
    ArrayKind, ArrayShape, ArrayWriter, Disk, FORMAT_VERSION, FileEntry, Manifest, Measured,
    Publication, RamArray, Storage, write_meta,
};
use crate::distance::is_too_long;
use crate::full_store::layout::Layout;
use crate::graph::adjacency::Adjacency;
use crate::graph::grow::{self, GrowParams, append, grow};
use crate::graph::order::{Ordered, renumber};
use crate::graph::prune::PruneRule;
use crate::graph::{entry_points_of, reach};
use crate::key_table::KeyTable;
use crate::open::Meta;
use crate::params::{BuildParams, MAX_ROWS, out_of_range};
use crate::payload::PayloadSource;
use crate::preview::Preview;
use crate::quantizer::{CodeSpace, Quantizer, TRIED_QUERIES};
use crate::stats::Job;
use memory::BuildMemory;
use row_pass::{BuildCodes, CHUNK_BYTES, NO_COSINE, RowPass, TOO_LONG};
use tokens::TokenCodes;

/// Rows that train the quantizer.
const SAMPLE_ROWS: usize = 20_000;
/// Most bytes of the sample.
const SAMPLE_BYTES: usize = 32 << 20;
/// Most neighbors that ids are grouped by: what a member adds is looked at by all that follow.
const MAX_GROUP: usize = 64;

/// What an index is built from.
#[derive(Clone, Copy, Debug)]
pub struct BuildInput<'a> {
    /// The vectors, `[n x dim]`.
    pub base: &'a VectorFile,
    /// What the rows are called.
    pub keys: Keys<'a>,
    /// JSON lines, an object a row in the order of the base file.
    pub payload: Option<&'a Path>,
    /// Sample queries, `[any x dim]`, to calibrate with; without them rows of the base serve.
    pub learn: Option<&'a VectorFile>,
    /// Whether the last number of a row is the bias of its token, and that of a hidden state 1.
    pub bias: bool,
}

/// The caller's names for the rows of the base file.
#[derive(Clone, Copy, Debug)]
pub enum Keys<'a> {
    /// Row `i` is called `first + i`.
    From(u64),
    /// Row `i` is called `keys[i]`; no two alike.
    List(&'a [u64]),
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
    let started = Instant::now();
    params.check()?;
    let memory = BuildMemory::plan(input, params)?;
    check_keys(input)?;
    check_learn(input, params.metric, job)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(params.threads).build()?;
    let publication = Publication::begin(&Disk, out)?;
    let payload = match input.payload {
        Some(path) => Some(PayloadSource::open(path, input.base.len() as u64)?),
        None => None,
    };
    let sample = sample(input.base, params)?;
    let mut pass = RowPass::new(input.base, params.metric, job);
    let grown = pool.install(|| grow_over(&mut pass, input, &sample, (params, job)))?;
    drop(sample);
    let mut files = Files { storage: &Disk, dir: publication.dir(), entries: Vec::new() };
    files.write_graph(&grown.graph)?;
    let entry_points = entry_points_of(grown.graph.len() as u32);
    drop(grown.graph);
    let (stride, beyond) = (grown.quantizer.stride(), grown.quantizer.finer_stride());
    files.write_records(ArrayKind::Codes, &grown.codes, (&grown.old, stride))?;
    if beyond > 0 {
        files.write_records(ArrayKind::Finer, &grown.finer, (&grown.old, beyond))?;
    }
    drop((grown.codes, grown.finer));
    let mut vocabulary = None;
    if tokens::wanted(input, params) {
        let encode = || tokens::encode(&mut pass, input, &grown.rows, (params, job));
        let TokenCodes { spec, records } = pool.install(encode)?;
        files.write_tokens(&records, spec.stride())?;
        vocabulary = Some(spec);
    }
    let window = memory.window_rows(input.base);
    files.entries.extend(pass.write_rows(files.storage, files.dir, (&grown.rows, window))?);
    files.write_keys(input.keys, &grown.rows)?;
    if let Some(payload) = &payload {
        files.entries.extend(payload.write(files.storage, files.dir, &grown.rows)?);
    }
    let quantizer = grown.quantizer.spec().clone();
    let frontier = grown.frontier;
    files.write_meta(&Meta { entry_points, quantizer, frontier, vocabulary })?;
    if job.interrupted() {
        return Err(BuildError::Interrupted);
    }
    let manifest = files.write_manifest(input, params)?;
    let measured = Measured {
        build_seconds: started.elapsed().as_secs_f64(),
        predicted_peak_bytes: memory.peak(),
        peak_rss_bytes: memory::peak_rss_bytes(),
    };
    measured.write(&Disk, publication.dir())?;
    publication.commit()?;
    Ok(BuildReport {
        resident_bytes: manifest.memory().at_open,
        disk_bytes: manifest.files.iter().map(|file| file.bytes).sum(),
        repaired: grown.repaired,
        manifest,
        measured,
    })
}

/// The rows that train the quantizer.
fn sample(base: &VectorFile, params: &BuildParams) -> Result<Rows, BuildError> {
    let row_bytes = base.dim() * base.element().size();
    let count = SAMPLE_ROWS.min(SAMPLE_BYTES / row_bytes).max(1000);
    Ok(base.sample(count, params.seed)?.1)
}

/// A graph in its final order.
struct Grown {
    graph: Adjacency,
    /// `[n]`: the row of the base file that each id stands for.
    rows: Vec<u32>,
    /// As the index serves them, in the order of insertion.
    quantizer: Quantizer,
    codes: RamArray<u8>,
    finer: RamArray<u8>,
    /// `[n]`: the place in the order of insertion that each id has.
    old: Vec<u32>,
    frontier: Frontier,
    repaired: u64,
}

fn grow_over(
    pass: &mut RowPass<'_>,
    input: &BuildInput<'_>,
    sample: &Rows,
    (params, job): (&BuildParams, Job<'_>),
) -> Result<Grown, BuildError> {
    let quantizer = Quantizer::train(params.metric, sample, params.seed);
    // Rows are inserted in a random order: what comes first is spread over the data and is where
    // every walk starts.
    let mut rows: Vec<u32> = (0..pass.len() as u32).collect();
    Seeded::new(params.seed).shuffle(&mut rows);
    let held_out = calibrate::held_out(rows.len(), input.base.dim());
    let count = (rows.len() - held_out) as u32;
    let scattered = pass.encode(&quantizer, &rows)?;
    let space = CodeSpace::new(&quantizer, &scattered.codes, &scattered.lifts);
    let order = grow::order(&space, count);
    rows = order.iter().map(|place| rows[*place as usize]).collect();
    let BuildCodes { codes, lifts, .. } = scattered.in_order(&order)?;
    let space = CodeSpace::new(&quantizer, &codes, &lifts);
    let asked = match input.learn {
        Some(learn) => Some(learn.sample(TRIED_QUERIES, params.seed)?.1),
        None => None,
    };
    let samples = (sample, asked.as_ref());
    let mut serving = quantizer.serving(params.bits, &pass.facts(), samples);
    drop(asked);
    let BuildCodes { codes: serving_codes, finer, .. } = pass.encode(&serving, &rows)?;
    serving.note(&pass.facts());
    let grow_params = grow_params(params);
    let graph = {
        let space = space.walked_over(&serving, &serving_codes);
        grow(&space, &grow_params, count, job)?
    };
    let entry_points = entry_points_of(rows.len() as u32);
    let graph = graph.into();
    let preview = Preview { quantizer: serving, codes: serving_codes, finer, graph, entry_points };
    let subject = Subject {
        preview: &preview,
        rows: &rows,
        held_out,
        base: input.base,
        learn: input.learn,
        metric: params.metric,
        seed: params.seed,
        threads: params.threads,
    };
    let frontier = calibrate::calibrate(&subject, job)?;
    let Preview { quantizer: serving, codes: serving_codes, finer, graph, .. } = preview;
    let mut graph = graph.into_lists();
    job.tell("connecting", 0, 1);
    let space = space.walked_over(&serving, &serving_codes);
    append(&space, &grow_params, &mut graph, count);
    let repaired = reach::repair(&space, &mut graph, entry_points) as u64;
    drop(codes);
    let store = Layout::new(input.base.dim() * input.base.element().size());
    let group = (store.rows_per_unit() as usize).min(MAX_GROUP);
    let Ordered { graph, old } = renumber(&graph, entry_points, group)?;
    job.tell("connecting", 1, 1);
    let rows = old.iter().map(|old| rows[*old as usize]).collect();
    let (quantizer, codes) = (serving, serving_codes);
    Ok(Grown { graph, rows, quantizer, codes, finer, old, frontier, repaired })
}

/// What the parameters of a build say about growing.
fn grow_params(params: &BuildParams) -> GrowParams {
    let rule = PruneRule {
        max_degree: params.max_degree as usize,
        alpha: params.alpha,
        shift: params.shift,
    };
    GrowParams { rule, list_size: params.list_size as usize }
}

fn check_keys(input: &BuildInput<'_>) -> Result<(), BuildError> {
    let n = input.base.len();
    if n as u64 > MAX_ROWS {
        return Err(out_of_range("rows", n, format!("at most {MAX_ROWS}")).into());
    }
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

/// Whether every sample query, or hidden state, can be asked of an index. Goes over them once.
fn check_learn(input: &BuildInput<'_>, metric: Metric, job: Job<'_>) -> Result<(), BuildError> {
    let Some(learn) = input.learn else { return Ok(()) };
    let row_bytes = learn.dim() * learn.element().size();
    for chunk in learn.chunks((CHUNK_BYTES / row_bytes).max(1)) {
        let (first, rows) = chunk?;
        if job.interrupted() {
            return Err(BuildError::Interrupted);
        }
        job.tell("checking samples", first as u64, learn.len() as u64);
        let refuse = |row: usize, what| {
            Err(BuildError::Row { path: learn.path().into(), row: first + row, what })
        };
        let cosine = metric == Metric::Cosine;
        if let Some(row) = rows.first_zero().filter(|_| cosine) {
            return refuse(row, NO_COSINE);
        }
        if let Some(row) = rows.iter().position(is_too_long).filter(|_| !cosine) {
            return refuse(row, TOO_LONG);
        }
    }
    Ok(())
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

    /// Writes the record at place `old[id]` for each id in order.
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

    fn write_tokens(&mut self, records: &[u8], stride: usize) -> Result<(), BuildError> {
        let shape = ArrayShape::packed((records.len() / stride) as u64, stride as u32);
        let mut writer = ArrayWriter::create(self.storage, self.dir, ArrayKind::Tokens, shape)?;
        writer.append(records)?;
        self.entries.extend(writer.finish()?);
        Ok(())
    }

    fn write_keys(&mut self, keys: Keys<'_>, rows: &[u32]) -> Result<(), BuildError> {
        let entries = match keys {
            Keys::From(first) => {
                let keys = rows.iter().map(|row| first + u64::from(*row));
                KeyTable::write(self.storage, self.dir, keys)?
            }
            Keys::List(list) => {
                let keys = rows.iter().map(|row| list[*row as usize]);
                KeyTable::write(self.storage, self.dir, keys)?
            }
        };
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
        params: &BuildParams,
    ) -> Result<Manifest, BuildError> {
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            n: input.base.len() as u64,
            dim: input.base.dim() as u32,
            metric: params.metric,
            element: input.base.element(),
            bits: params.bits,
            max_degree: params.max_degree,
            list_size: params.list_size,
            alpha: params.alpha,
            shift: params.shift,
            seed: params.seed,
            payload: input.payload.is_some(),
            tokens: self.entries.iter().any(|file| file.name == ArrayKind::Tokens.name()),
            bias: input.bias,
            files: self.entries,
            digest: String::new(),
            checksum: String::new(),
        };
        let manifest = manifest.seal()?;
        manifest.write(self.storage, self.dir)?;
        Ok(manifest)
    }
}
