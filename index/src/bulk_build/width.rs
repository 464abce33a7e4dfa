//! How many bits a dimension codes need for the data, and what a build reports of the data.
//!
//! Four bits find the nearest rows of nearly all data. They do not where near rows differ by a
//! thousandth of what all rows differ by, as in groups far apart or beside a column of timestamps:
//! codes round that away. So a sample is tried before the work starts.

use std::fmt::Write as _;

use foveal_datasets::Rows;

use super::memory::BuildMemory;
use super::{BuildError, BuildInput, TRIED_QUERIES, picked};
use crate::calibrate::{Frontier, FrontierPoint, LIST_SIZES};
use crate::code_width::CodeWidth;
use crate::params::{BuildParams, SearchParams};
use crate::quantizer::{ENOUGH, FAR_TIMES, Limits, Quantizer, Trial};

/// The widths that are tried, in turn, where the caller leaves the choice; the last one will do.
const TRIED: [CodeWidth; 3] = [CodeWidth::Four, CodeWidth::Eight, CodeWidth::Whole];
/// The trial: what fullview ranks of some thousand rows by default must hold the nearest.
const TRIAL: Trial = Trial { rows: 4000, within: 64 };
/// The recall that a default search should reach.
const WANTED_RECALL: f64 = 0.95;
/// The results of a default search.
const USUAL_K: u32 = 10;
/// A column with more of the variance than this is named.
const MUCH_OF_VARIANCE: f64 = 0.5;
/// Rows that a warning names.
const NAMED: usize = 5;

/// The width of a build's codes as far as it is known before it begins.
pub(super) fn first_of(params: &BuildParams) -> CodeWidth {
    params.bits.and_then(CodeWidth::of_bits).unwrap_or(TRIED[0])
}

/// The width of codes, and what was learned on the way to it.
pub(super) struct Width {
    pub(super) width: CodeWidth,
    /// The quantizer that the graph is grown over.
    pub(super) quantizer: Quantizer,
    pub(super) limits: Limits,
    /// The rows that quantizers learn from, without extreme ones.
    pub(super) sample: Rows,
    /// Some sample queries.
    pub(super) sample_queries: Option<Rows>,
    /// The memory of a build of this width, where it is not the one that was planned for.
    pub(super) memory: Option<BuildMemory>,
    pub(super) warnings: Vec<String>,
}

impl Width {
    /// Takes the bits of the parameters, or the fewest with which a sample finds its nearest rows.
    pub(super) fn choose(
        input: &BuildInput<'_>,
        sample: Rows,
        params: &BuildParams,
    ) -> Result<Width, BuildError> {
        let (metric, seed) = (params.metric, params.seed);
        let train = |width: CodeWidth, sample: &Rows| {
            // Whole rows are grown over as they are served, all others by 8 bits.
            Quantizer::train(metric, width.max(CodeWidth::Eight), sample, seed)
        };
        let chosen = first_of(params);
        let quantizer = train(chosen, &sample);
        let limits = quantizer.limits(&sample);
        let sample = without_extremes(sample, &limits, &quantizer);
        let sample_queries = match input.learn {
            Some(learn) => Some(learn.sample(TRIED_QUERIES, seed)?.1),
            None => None,
        };
        let (memory, warnings) = (None, Vec::new());
        let mut width =
            Width { width: chosen, quantizer, limits, sample, sample_queries, memory, warnings };
        if params.bits.is_some() {
            return Ok(width);
        }
        let tried = width.sample.len().min(TRIAL.rows + TRIED_QUERIES);
        let some = picked(&width.sample, &(0..tried).collect::<Vec<usize>>());
        let samples = (&some, width.sample_queries.as_ref());
        let mut shares = Vec::new();
        for tried in TRIED {
            let quantizer = train(tried, &width.sample);
            let facts = width.limits.clamp(quantizer.facts_of(&some));
            let share = quantizer.serving(tried, &facts, samples).share_found(&TRIAL, samples);
            shares.push((tried, share));
            if share >= ENOUGH || tried == CodeWidth::Whole {
                width.take(tried, quantizer, (input, params));
                break;
            }
        }
        if shares.len() > 1 {
            let warning = width.reason(&shares);
            width.warnings.push(warning);
        }
        Ok(width)
    }

    /// Takes a width, if memory allows it.
    fn take(
        &mut self,
        width: CodeWidth,
        quantizer: Quantizer,
        (input, params): (&BuildInput<'_>, &BuildParams),
    ) {
        if width == TRIED[0] {
            return;
        }
        if let Ok(memory) = BuildMemory::plan(input, params, width) {
            (self.width, self.quantizer, self.memory) = (width, quantizer, Some(memory));
        }
    }

    /// Why codes are wider than usual, or are not although they should be.
    fn reason(&self, shares: &[(CodeWidth, f64)]) -> String {
        let (wanted, last) = shares[shares.len() - 1];
        let mut text = coarse(shares[0].0, shares[0].1);
        if self.width == wanted {
            let _ = write!(text, "; codes have {wanted} bits a dimension instead");
        } else {
            let _ = write!(text, "; {wanted} bits would, but the memory limit does not allow them");
        }
        if last < ENOUGH {
            let _ = write!(text, ", which find {:.0} %", 100.0 * last);
        }
        if let Some((column, share)) = leading_column(&self.sample) {
            let percent = 100.0 * share;
            let _ = write!(
                text,
                ". Column {column} holds {percent:.1} % of the variance: dividing it by its \
                 standard deviation, or leaving it out, lets fewer bits do"
            );
        }
        text
    }
}

/// The sample without its extreme rows.
fn without_extremes(sample: Rows, limits: &Limits, quantizer: &Quantizer) -> Rows {
    if *limits == Limits::NONE {
        return sample;
    }
    let near = quantizer.near_rows(limits, &sample);
    if near.len() == sample.len() { sample } else { picked(&sample, &near) }
}

fn coarse(width: CodeWidth, share: f64) -> String {
    format!(
        "{width} bits a dimension do not tell near rows apart: a sample finds {:.0} % of the true \
         nearest rows among the best {} by their codes",
        100.0 * share,
        TRIAL.within
    )
}

/// Says so if codes of the width that the caller chose do not tell rows apart.
pub(super) fn trial_warning(
    serving: &Quantizer,
    samples: (&Rows, Option<&Rows>),
) -> Option<String> {
    let share = serving.share_found(&TRIAL, samples);
    let width = serving.spec().width();
    (share < ENOUGH).then(|| format!("{}; leave the width to the build", coarse(width, share)))
}

/// Names the extreme rows, as many as are kept whole of `all`.
pub(super) fn extremes_warning(rows: &[u32], all: usize) -> Option<String> {
    if rows.is_empty() {
        return None;
    }
    let some: Vec<String> = rows.iter().take(NAMED).map(u32::to_string).collect();
    let more = if rows.len() > NAMED { ", ..." } else { "" };
    let (count, some) = (rows.len(), some.join(", "));
    let kept = match all - count {
        0 => "they are kept whole in memory and every query meets them".to_owned(),
        others => format!(
            "the {count} farthest are kept whole in memory and every query meets them; the other \
             {others} have codes that tell little, and a search may miss them"
        ),
    };
    Some(format!(
        "{all} rows lie more than {FAR_TIMES} times as far out as nine tenths of the rows do \
         (row {some}{more}): {kept}; check that their numbers are meant"
    ))
}

/// Says so if a default search finds too little, as far as was measured while `part` of all rows
/// was in the graph.
pub(super) fn recall_warning(frontier: &Frontier, part: f64) -> Option<String> {
    let list_size = SearchParams::new(USUAL_K).list_size;
    let points = || frontier.points.iter().filter(|point| point.k == USUAL_K);
    // With more rows the same list covers a smaller share of them, so its size is scaled by the
    // share that was measured.
    let recall = recall_at(points(), part * f64::from(list_size))?;
    if recall >= WANTED_RECALL {
        return None;
    }
    let mut text =
        format!("recall@{USUAL_K} is {recall:.3} at the default list size of {list_size}");
    let of = |size: u32| recall_at(points(), part * f64::from(size)).map(|recall| (size, recall));
    let larger = LIST_SIZES.into_iter().filter(|size| *size > list_size).filter_map(of);
    let _ = match larger.into_iter().find(|(_, recall)| *recall >= WANTED_RECALL) {
        Some((size, recall)) => write!(text, "; --list-size {size} reaches {recall:.3}"),
        None => write!(text, ", and no list size tried reaches {WANTED_RECALL}"),
    };
    text.push_str(match frontier.learned {
        true => ". A larger --max-degree may help",
        false => ". A larger --max-degree, or sample queries (--learn), may help",
    });
    Some(text)
}

/// The recall at a list size between those of two points, on the straight line that joins them.
fn recall_at<'a>(points: impl Iterator<Item = &'a FrontierPoint>, list_size: f64) -> Option<f64> {
    let points: Vec<&FrontierPoint> = points.collect();
    let at = points.iter().position(|point| f64::from(point.list_size) >= list_size)?;
    let upper = points[at];
    let Some(lower) = at.checked_sub(1).map(|at| points[at]) else { return Some(upper.recall) };
    let [from, to] = [lower, upper].map(|point| f64::from(point.list_size));
    Some(lower.recall + (list_size - from) / (to - from) * (upper.recall - lower.recall))
}

/// The column with most of the variance, and its share, if that is much.
fn leading_column(sample: &Rows) -> Option<(usize, f64)> {
    let dim = sample.dim();
    let (mut sums, mut squares) = (vec![0.0f64; dim], vec![0.0f64; dim]);
    let mut wide = vec![0.0f32; dim];
    for row in sample.iter() {
        row.widen_into(&mut wide);
        for (i, x) in wide.iter().enumerate() {
            sums[i] += f64::from(*x);
            squares[i] += f64::from(*x) * f64::from(*x);
        }
    }
    let n = sample.len() as f64;
    let variances = || sums.iter().zip(&squares).map(|(sum, square)| square - sum * sum / n);
    let all: f64 = variances().sum();
    let (column, most) = variances().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    (dim > 1 && most > MUCH_OF_VARIANCE * all).then_some((column, most / all))
}

#[cfg(test)]
mod tests {
    use foveal_datasets::Values;

    use super::*;

    #[test]
    fn a_recall_below_what_is_wanted_names_the_list_size_that_reaches_it() {
        let told_of = |recalls: [f64; 3], part: f64| {
            let point = |(list_size, recall): (u32, f64)| FrontierPoint {
                k: USUAL_K,
                list_size,
                recall,
                lower: recall,
                distances: 1.0,
            };
            let points = [32, 64, 128].into_iter().zip(recalls).map(point).collect();
            let frontier = Frontier { queries: 100, points, ..Frontier::default() };
            recall_warning(&frontier, part)
        };
        let told = |recalls| told_of(recalls, 1.0);
        assert_eq!(SearchParams::new(USUAL_K).list_size, 64);
        assert_eq!(told([0.9, 0.96, 0.98]), None);
        let reached = told([0.8, 0.9, 0.97]).unwrap();
        assert!(reached.contains("0.900 at the default list size of 64; --list-size 128 reaches"));
        assert!(told([0.5, 0.6, 0.7]).unwrap().contains("no list size tried reaches 0.95"));
        // A tenth of the rows was not there yet: a list of 64 is then one of 57.6 among the others.
        let fewer = told_of([0.6, 0.96, 0.98], 0.9).unwrap();
        assert!(fewer.starts_with("recall@10 is 0.888 at the default list size of 64"), "{fewer}");
        assert_eq!(told_of([0.94, 0.96, 0.98], 0.9), None);
        assert_eq!(recall_warning(&Frontier::default(), 1.0), None, "nothing was measured");
    }

    #[test]
    fn warnings_name_rows_and_columns() {
        assert_eq!(extremes_warning(&[], 0), None);
        let few = extremes_warning(&[7, 9], 2).unwrap();
        assert!(few.starts_with("2 rows lie") && few.contains("(row 7, 9)"), "{few}");
        assert!(few.contains("9): they are kept whole"), "{few}");
        let many = extremes_warning(&[1, 2, 3, 4, 5, 6], 10).unwrap();
        assert!(many.starts_with("10 rows") && many.contains("(row 1, 2, 3, 4, 5, ...)"), "{many}");
        assert!(many.contains("the 6 farthest are kept") && many.contains("the other 4"), "{many}");
        let rows = |column: usize, factor: f32| {
            let scale = |i: usize| if i % 3 == column { factor } else { 1.0 };
            let numbers = (0..30).map(|i| scale(i) * (i * 7 % 5) as f32).collect();
            Rows::new(3, Values::F32(numbers)).unwrap()
        };
        let (column, share) = leading_column(&rows(2, 100.0)).unwrap();
        assert!(column == 2 && share > 0.99, "{column} {share}");
        assert_eq!(leading_column(&rows(0, 1.0)), None);
    }
}
