//! Rows -> codes and a graph over them, in their final order.

use std::collections::HashSet;

use foveal_datasets::{Metric, RowSource};

use super::row_pass::{BuildCodes, RowPass};
use super::width::{self, Width};
use super::{BuildError, BuildInput, grow_params};
use crate::calibrate::{self, Frontier, Subject};
use crate::code_width::CodeWidth;
use crate::disk::RamArray;
use crate::extremes::Extremes;
use crate::full_store::layout::Layout;
use crate::graph::adjacency::Adjacency;
use crate::graph::connectivity;
use crate::graph::entry_points_of;
use crate::graph::grow::{self, append, grow};
use crate::graph::order::{Ordered, renumber};
use crate::params::BuildParams;
use crate::preview::Preview;
use crate::quantizer::{CodeSpace, Quantizer};
use crate::stats::Job;

/// Most neighbors that ids are grouped by: what a member adds is looked at by all that follow.
const MAX_GROUP: usize = 64;

/// A graph in its final order.
pub(super) struct Grown {
    pub(super) graph: Adjacency,
    /// `[n]`: the row of the base file that each id stands for.
    pub(super) rows: Vec<u32>,
    /// As the index serves them, in the order of insertion.
    pub(super) quantizer: Quantizer,
    pub(super) codes: RamArray<u8>,
    pub(super) extra: RamArray<u8>,
    pub(super) extremes: Extremes,
    /// `[n]`: the position in the order of insertion that each id has.
    pub(super) old: Vec<u32>,
    pub(super) frontier: Frontier,
    pub(super) repaired: u64,
    pub(super) warnings: Vec<String>,
}

/// What a graph is grown over: codes of 8 bits, or the whole rows that are served.
struct GrownOver {
    quantizer: Quantizer,
    /// None where those that are served are the same.
    codes: Option<RamArray<u8>>,
    /// `[n]` under ip, else empty: see `CodeSpace`.
    lifts: Vec<f32>,
}

/// The input of a build and how it is built.
#[derive(Clone, Copy)]
pub(super) struct Order<'a> {
    pub(super) input: &'a BuildInput<'a>,
    pub(super) params: &'a BuildParams,
    pub(super) job: Job<'a>,
}

impl Grown {
    /// Encodes all rows, grows the graph over the codes and measures what it finds.
    pub(super) fn over(
        pass: &mut RowPass<'_>,
        order: Order<'_>,
        (width, by_hash): (Width, Vec<u32>),
    ) -> Result<Grown, BuildError> {
        let Order { input, params, job } = order;
        let Width { quantizer, sample, sample_queries, limits, mut warnings, width, .. } = width;
        pass.set_limits(limits);
        let Arranged { rows, codes, lifts, extremes, held_out } =
            Arranged::new(pass, (input.base, by_hash), &quantizer, params)?;
        warnings.extend(width::extremes_warning(pass.extremes(), pass.far_rows()));
        let samples = (&sample, sample_queries.as_ref());
        let mut serving = quantizer.serving(width, &pass.facts(), samples);
        if params.bits.is_some() {
            warnings.extend(width::trial_warning(&serving, samples));
        }
        drop((sample, sample_queries));
        let coded = extremes.first();
        let (codes, served) = match width {
            // Whole rows are served as they are.
            CodeWidth::Whole => {
                (None, BuildCodes { codes, extra: RamArray::zeroed(0)?, lifts: Vec::new() })
            }
            _ => (Some(codes), pass.encode(&serving, (&rows, coded as usize))?),
        };
        serving.note(&pass.facts());
        let over = GrownOver { quantizer, codes, lifts };
        let BuildCodes { codes, extra, .. } = served;
        let space = over.space(&serving, &codes);
        let graph = grow(&space, &grow_params(params), coded - held_out, job)?.into();
        let (quantizer, entry_points) = (serving, entry_points_of(coded));
        let preview = Preview { quantizer, codes, extra, graph, entry_points, extremes };
        let Connected { preview, frontier, repaired } =
            Connected::new(preview, over, &rows, held_out as usize, order)?;
        let part =
            if frontier.learned { 1.0 } else { 1.0 - f64::from(held_out) / f64::from(coded) };
        warnings.extend(width::recall_warning(&frontier, part));
        let Preview { quantizer, codes, extra, graph, extremes, .. } = preview;
        let store = Layout::new(input.base.dim() * input.base.element().size());
        let group = (store.rows_per_unit() as usize).min(MAX_GROUP);
        let Ordered { graph, mut old } = renumber(&graph.into_lists(), entry_points, group)?;
        old.extend(coded..pass.len() as u32);
        job.tell("connecting", 1, 1);
        let rows = old.iter().map(|old| rows[*old as usize]).collect();
        Ok(Grown {
            graph,
            rows,
            quantizer,
            codes,
            extra,
            extremes,
            old,
            frontier,
            repaired,
            warnings,
        })
    }
}

impl GrownOver {
    /// The space of rows, once it is known which codes are served.
    fn space<'a>(&'a self, serving: &'a Quantizer, served: &'a [u8]) -> CodeSpace<'a> {
        let codes = self.codes.as_deref().unwrap_or(served);
        CodeSpace::new(&self.quantizer, codes, &self.lifts).walked_over(serving, served)
    }
}

/// Rows in the order in which they are inserted, the extreme ones last.
struct Arranged {
    /// `[n]`: rows of the base file.
    rows: Vec<u32>,
    /// Of the rows that are not extreme.
    codes: RamArray<u8>,
    lifts: Vec<f32>,
    extremes: Extremes,
    /// How many of the rows with codes are inserted last, after they served as queries.
    held_out: u32,
}

impl Arranged {
    fn new(
        pass: &mut RowPass<'_>,
        (base, by_hash): (&dyn RowSource, Vec<u32>),
        quantizer: &Quantizer,
        params: &BuildParams,
    ) -> Result<Arranged, BuildError> {
        // What comes first is spread over the data and is where every walk starts.
        let mut rows = by_hash;
        let scattered = pass.encode(quantizer, (&rows, rows.len()))?;
        let extremes = extremes_of(pass.extremes(), base, params.metric)?;
        let coded = extremes.first();
        let held_out = calibrate::held_out(coded as usize, base.dim()) as u32;
        let scattered = extremes_last(scattered, &mut rows, (pass.extremes(), quantizer.stride()))?;
        let space = CodeSpace::new(quantizer, &scattered.codes, &scattered.lifts);
        let order = grow::order(&space, coded - held_out);
        let BuildCodes { codes, lifts, .. } = scattered.in_order(&order, quantizer.stride())?;
        let inserted = order.iter().map(|position| rows[*position as usize]);
        let rows = inserted.chain(pass.extremes().iter().copied()).collect();
        Ok(Arranged { rows, codes, lifts, extremes, held_out })
    }
}

/// Moves the extreme rows to the end of `rows` and drops their codes; both keep their order.
fn extremes_last(
    scattered: BuildCodes,
    rows: &mut [u32],
    (extremes, stride): (&[u32], usize),
) -> Result<BuildCodes, BuildError> {
    if extremes.is_empty() {
        return Ok(scattered);
    }
    let far: HashSet<u32> = extremes.iter().copied().collect();
    let is_coded = |position: &u32| !far.contains(&rows[*position as usize]);
    let coded: Vec<u32> = (0..rows.len() as u32).filter(is_coded).collect();
    let kept: Vec<u32> = coded.iter().map(|position| rows[*position as usize]).collect();
    let (first, last) = rows.split_at_mut(kept.len());
    first.copy_from_slice(&kept);
    last.copy_from_slice(extremes);
    Ok(scattered.in_order(&coded, stride)?)
}

/// Reads the extreme rows.
fn extremes_of(rows: &[u32], base: &dyn RowSource, metric: Metric) -> Result<Extremes, BuildError> {
    let rows = calibrate::gather(base, rows)?;
    let mut numbers = vec![0.0; rows.len() * base.dim()];
    let positions = numbers.chunks_exact_mut(base.dim());
    positions.zip(rows.iter()).for_each(|(target, row)| row.widen_into(target));
    Ok(Extremes::new(metric, (base.len() as u32, base.dim()), numbers))
}

/// A graph of all rows with codes, each of which can be reached, and what it finds.
struct Connected {
    preview: Preview,
    frontier: Frontier,
    repaired: u64,
}

impl Connected {
    /// Inserts the rows that were held out. Measures what the graph finds before that, with those
    /// rows as queries, or after it where there are sample queries, which meet all of it.
    fn new(
        preview: Preview,
        over: GrownOver,
        rows: &[u32],
        held_out: usize,
        Order { input, params, job }: Order<'_>,
    ) -> Result<Connected, BuildError> {
        let calibrated = |preview: &Preview, held_out| {
            let BuildInput { base, learn, .. } = *input;
            let BuildParams { metric, seed, threads, .. } = *params;
            let subject = Subject { preview, rows, held_out, base, learn, metric, seed, threads };
            calibrate::calibrate(&subject, job)
        };
        let by_rows = input.learn.is_none().then(|| calibrated(&preview, held_out)).transpose()?;
        job.tell("connecting", 0, 1);
        let Preview { quantizer, codes, extra, graph, entry_points, extremes } = preview;
        let mut graph = graph.into_lists();
        let space = over.space(&quantizer, &codes);
        append(&space, &grow_params(params), &mut graph, extremes.first() - held_out as u32);
        let repaired = connectivity::repair(&space, &mut graph, entry_points) as u64;
        drop(over);
        let graph = graph.into();
        let preview = Preview { quantizer, codes, extra, graph, entry_points, extremes };
        let frontier = match by_rows {
            Some(frontier) => frontier,
            None => calibrated(&preview, 0)?,
        };
        Ok(Connected { preview, frontier, repaired })
    }
}
