//! The parameters of a build and a query: checked when made, trusted ever after.

use foveal_datasets::Metric;

use crate::code_width::CodeWidth;

/// The most results a query may request.
pub const MAX_K: u32 = 16_384;
/// The largest list size of a query.
pub const MAX_LIST_SIZE: u32 = 65_536;
/// The largest list size of a build.
pub const MAX_BUILD_LIST_SIZE: u32 = 4_096;
/// The largest degree of a graph.
pub const MAX_MAX_DEGREE: u32 = 256;
/// The most threads that one job or one server may start.
pub const MAX_THREADS: usize = 1024;
/// A segment of at most so many rows is scanned by every search: a walk would meet most of them,
/// and coarse codes among its list could hide some of the nearest.
pub const SCANNED_ROWS: u64 = 512;
/// The most rows an index may hold.
pub const MAX_ROWS: u64 = (1 << 31) - 1;

/// A parameter that cannot be used: which, what was found, what is wanted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name} is {found}; wanted {wanted}")]
pub struct ParamsError {
    /// The parameter, as its field is called.
    pub name: &'static str,
    /// The value given.
    pub found: String,
    /// What would do.
    pub wanted: String,
}

pub(crate) fn out_of_range(
    name: &'static str,
    found: impl ToString,
    wanted: impl Into<String>,
) -> ParamsError {
    ParamsError { name, found: found.to_string(), wanted: wanted.into() }
}

fn in_range(name: &'static str, found: u32, low: u32, high: u32) -> Result<(), ParamsError> {
    if (low..=high).contains(&found) {
        return Ok(());
    }
    Err(out_of_range(name, found, format!("{low} to {high}")))
}

/// Whether a job may start so many threads; 0 stands for every core.
///
/// # Errors
/// More than [`MAX_THREADS`].
pub fn check_threads(threads: usize) -> Result<(), ParamsError> {
    if threads <= MAX_THREADS {
        return Ok(());
    }
    Err(out_of_range("threads", threads, format!("0 to {MAX_THREADS}")))
}

/// Whether an index may have so many rows.
///
/// # Errors
/// More than [`MAX_ROWS`].
pub fn check_rows(rows: usize) -> Result<(), ParamsError> {
    if rows as u64 <= MAX_ROWS {
        return Ok(());
    }
    Err(out_of_range("rows", rows, format!("at most {MAX_ROWS}")))
}

/// How an index is built.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildParams {
    /// What "near" means.
    pub metric: Metric,
    /// Bits a dimension in the codes: 2, 4, 5, 6, 8 or 32. Two are kept along the leading axes
    /// alone, where that will do for a sample; of more, preview walks over four or eight, and a
    /// fifth and sixth rank what it found, so that fewer full vectors are read; 32 keep the rows
    /// whole. `None` takes four, or where those do not find the nearest rows of a sample, eight or
    /// 32, and says so.
    pub bits: Option<u8>,
    /// The most neighbors a node may have.
    pub max_degree: u32,
    /// Capacity of the candidate pool while the graph grows.
    pub list_size: u32,
    /// Prune slack: drop y if alpha * d(r, y) < d(p, y).
    pub alpha: f32,
    /// Seed of every random choice.
    pub seed: u64,
    /// Worker threads; 0 takes every core.
    pub threads: usize,
    /// The most memory the build may use, in bytes; `None` sets no limit.
    pub memory: Option<u64>,
}

impl BuildParams {
    /// The defaults for a metric: 4 bits where they will do, 32 neighbors, list size 128, alpha 1
    /// (MRNG).
    pub fn new(metric: Metric) -> BuildParams {
        BuildParams {
            metric,
            bits: None,
            max_degree: 32,
            list_size: 128,
            alpha: 1.0,
            seed: 42,
            threads: 0,
            memory: None,
        }
    }

    /// Whether every value can be used.
    ///
    /// # Errors
    /// The first value out of range, named.
    pub fn check(&self) -> Result<(), ParamsError> {
        if let Some(bits) = self.bits.filter(|bits| CodeWidth::of_bits(*bits).is_none()) {
            return Err(out_of_range("bits", bits, CodeWidth::in_words()));
        }
        in_range("max_degree", self.max_degree, 4, MAX_MAX_DEGREE)?;
        in_range("list_size", self.list_size, self.max_degree, MAX_BUILD_LIST_SIZE)?;
        if !(1.0..=4.0).contains(&self.alpha) {
            return Err(out_of_range("alpha", self.alpha, "1 to 4"));
        }
        check_threads(self.threads)
    }
}

/// How a query is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchParams {
    /// How many results are wanted.
    pub k: u32,
    /// The one effort knob: the walk goes as far as a pool of this many candidates reaches, on
    /// average; where an index does not know how far that is, the pool's capacity.
    pub list_size: u32,
    /// Most candidates whose full vectors may be read; others of the list are ranked as well
    /// where they share a block with one of them. A scan (few allowed rows, or an index of at most
    /// 512 rows) ranks up to 2,048 candidates, or `list_size` if that is more, whatever this says.
    pub rerank_size: u32,
    /// Most 4 KiB blocks fullview may read for the query; `None` sets no limit.
    pub max_reads: Option<u32>,
}

impl SearchParams {
    /// The defaults for `k` results: a list size of at least 64 and of 2 k, all of it reranked
    /// where the bounds need it.
    pub fn new(k: u32) -> SearchParams {
        SearchParams::with_list_size(k, k.saturating_mul(2).clamp(64, MAX_LIST_SIZE).max(k))
    }

    /// `k` results with an effort of `list_size`.
    pub fn with_list_size(k: u32, list_size: u32) -> SearchParams {
        SearchParams { k, list_size, rerank_size: list_size, max_reads: None }
    }

    /// `1 <= k <= rerank_size <= list_size`: every result is read, and only candidates are.
    ///
    /// # Errors
    /// The first value out of range, named.
    pub fn check(&self) -> Result<(), ParamsError> {
        in_range("k", self.k, 1, MAX_K)?;
        in_range("list_size", self.list_size, self.k, MAX_LIST_SIZE)?;
        in_range("rerank_size", self.rerank_size, self.k, self.list_size)?;
        if self.max_reads == Some(0) {
            return Err(out_of_range("max_reads", 0, "at least 1"));
        }
        Ok(())
    }
}

/// How candidates for a decode are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DecodeMode {
    /// The way that reads the fewest bytes.
    #[default]
    Auto,
    /// A scan of few-bit codes: those learned from sample hidden states, else those of preview.
    Scan,
    /// A walk of the graph, as FGD does; a scan where lists decide which tokens count.
    Graph,
    /// No estimates: the logits of all tokens.
    Exact,
}

impl DecodeMode {
    /// The name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            DecodeMode::Auto => "auto",
            DecodeMode::Scan => "scan",
            DecodeMode::Graph => "graph",
            DecodeMode::Exact => "exact",
        }
    }
}

/// How the sum that normalises probabilities is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogZMode {
    /// Nothing: probabilities are normalised over the tokens found.
    Off,
    /// An interval that holds it in 99 of 100 decodes.
    #[default]
    Interval,
    /// Its value; every row is read for it.
    Exact,
}

impl LogZMode {
    /// The name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            LogZMode::Off => "off",
            LogZMode::Interval => "interval",
            LogZMode::Exact => "exact",
        }
    }
}

/// How a hidden state is decoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodeParams {
    /// How many tokens are wanted.
    pub k: u32,
    /// How candidates are found.
    pub mode: DecodeMode,
    /// The share of the true k best that is wanted, below 1, where candidates are scanned for with
    /// learned codes: decides how many are ranked exactly.
    pub precision: f64,
    /// How many candidates are ranked exactly; `None` leaves it to `precision`, or to `list_size`.
    pub rerank_size: Option<u32>,
    /// Effort of the walk in mode graph.
    pub list_size: u32,
    /// What logits are divided by before they become probabilities.
    pub temperature: f64,
    /// Only the fewest tokens whose probabilities sum to this are returned.
    pub top_p: f64,
    /// How log Z is reported.
    pub log_z: LogZMode,
}

impl DecodeParams {
    /// The defaults for `k` tokens: 99.95 % of the most likely ones are wanted, and 99.5 % of the
    /// best ten or more. On text unlike the sample a little less is found.
    pub fn new(k: u32) -> DecodeParams {
        DecodeParams {
            k,
            mode: DecodeMode::Auto,
            precision: 1.0 - 0.0005 * f64::from(k.clamp(1, 10)),
            rerank_size: None,
            list_size: SearchParams::new(k).list_size,
            temperature: 1.0,
            top_p: 1.0,
            log_z: LogZMode::Interval,
        }
    }

    /// Whether every value can be used.
    ///
    /// # Errors
    /// The first value out of range, named.
    pub fn check(&self) -> Result<(), ParamsError> {
        in_range("k", self.k, 1, MAX_K)?;
        in_range("list_size", self.list_size, self.k, MAX_LIST_SIZE)?;
        if let Some(rerank_size) = self.rerank_size {
            in_range("rerank_size", rerank_size, self.k, MAX_LIST_SIZE)?;
        }
        if !(0.0..1.0).contains(&self.precision) {
            return Err(out_of_range("precision", self.precision, "0 to below 1"));
        }
        if !(1e-3..=1e3).contains(&self.temperature) {
            return Err(out_of_range("temperature", self.temperature, "0.001 to 1000"));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(out_of_range("top_p", self.top_p, "above 0 to 1"));
        }
        Ok(())
    }
}
