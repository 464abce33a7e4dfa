//! `foveal-bench coverage`: do intervals of log Z hold the truth, on heads of any shape?
//!
//! Builds output layers from random numbers and compares every decode with sums over all tokens in
//! f64 over the same rows. One JSON object a cell, on stdout.

use anyhow::Context;
use clap::{Args, ValueEnum};
use foveal_datasets::seeded::Seeded;
use foveal_datasets::{Metric, Row, RowSource, Rows, Values};
use foveal_index::{
    BuildInput, BuildParams, DecodeMode, DecodeParams, DecodeRequest, Decoder, Job, Keys, Segment,
    build,
};
use serde::Serialize;

/// Tokens whose share among the true best is measured.
const K: usize = 10;
/// The length along common directions.
const FAR: f32 = 200.0;
/// Directions in which rows hardly vary.
const STILL: usize = 3;

/// Measure how often intervals of log Z hold the truth on random output layers.
#[derive(Args)]
pub(crate) struct CoverageArgs {
    /// Sizes of the output layers.
    #[arg(long, value_delimiter = ',', default_value = "10,100,1500,5000,50000")]
    tokens: Vec<usize>,
    /// Dimensions, for each of the sizes.
    #[arg(long, value_delimiter = ',', default_value = "32")]
    dims: Vec<usize>,
    /// Kinds of output layers [default: all]
    #[arg(long, value_delimiter = ',')]
    shapes: Vec<Shape>,
    /// Temperatures.
    #[arg(long, value_delimiter = ',', default_value = "0.02,0.1,0.3,0.5,1,2,5")]
    temperatures: Vec<f64>,
    /// Ways to find candidates.
    #[arg(long, value_delimiter = ',', default_value = "auto,scan,graph,exact")]
    modes: Vec<String>,
    /// Hidden states of a cell.
    #[arg(long, default_value_t = 1000)]
    states: usize,
    /// Sample hidden states that the index learns from; a layer is built without them as well.
    #[arg(long, default_value_t = 1500)]
    learn: usize,
}

/// What rows and hidden states look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Shape {
    /// Logits of a standard deviation of about 1.
    Flat,
    /// Rows of unlike norms, and states near some of them.
    Mixed,
    /// Norms over two orders of magnitude.
    Peaked,
    /// One row is 30 times as long as the others.
    Long30,
    /// One row is 1,000 times as long.
    Long1000,
    /// Hidden states with a common mean of 200.
    FarStates,
    /// Rows and hidden states with a common mean of 200.
    FarBoth,
    /// States have a common mean of 200 where rows differ by 0.01.
    StillMean,
    /// States differ by 200 where rows differ by 0.01.
    StillSpread,
}

/// One cell: what it is, and what was found.
#[derive(Serialize)]
struct Cell {
    shape: Shape,
    tokens: usize,
    dim: usize,
    learned: bool,
    mode: String,
    temperature: f64,
    states: usize,
    /// The share of the intervals that hold the true log Z.
    covered: f64,
    width_p50: f64,
    /// The largest distance of a value from the truth, in nats.
    farthest: f64,
    precision_at_10: f64,
    /// The share of the decodes that took more exact logits than planned.
    widened: f64,
    reranked: f64,
    distances: f64,
}

/// What is true of a hidden state.
struct Truth {
    /// By temperature.
    log_z: Vec<f64>,
    best: Vec<u64>,
}

/// Builds, decodes, prints.
///
/// # Errors
/// A build or a decode fails, or a file cannot be written.
pub(crate) fn run(args: &CoverageArgs) -> anyhow::Result<()> {
    let shapes = if args.shapes.is_empty() { Shape::value_variants() } else { &args.shapes };
    for shape in shapes {
        for (tokens, dim) in args.tokens.iter().flat_map(|n| args.dims.iter().map(|d| (*n, *d))) {
            let head = Head::new(*shape, (tokens, dim), args);
            for learned in [true, false] {
                head.measure(args, learned).with_context(|| format!("{shape:?} of {tokens}"))?;
            }
        }
    }
    Ok(())
}

struct Head {
    shape: Shape,
    rows: Rows,
    learn: Rows,
    sample_states: Rows,
    truth: Vec<Truth>,
}

impl Head {
    fn new(shape: Shape, (tokens, dim): (usize, usize), args: &CoverageArgs) -> Head {
        let mut random = Seeded::new(tokens as u64 * 31 + dim as u64 + 1000 * shape as u64);
        let rows = rows_of(shape, (tokens, dim), &mut random);
        let learn = states_of(shape, (&rows, dim, args.learn), &mut random);
        let sample_states = states_of(shape, (&rows, dim, args.states), &mut random);
        let mirror = unit(dim, &mut random);
        let [rows, learn, sample_states] = [rows, learn, sample_states].map(|mut numbers| {
            numbers.chunks_exact_mut(dim).for_each(|row| reflect(row, &mirror));
            Rows::new(dim, Values::F32(numbers)).expect("whole rows")
        });
        let truth = sample_states.iter().map(|state| truth_of(&rows, &wide(state), args)).collect();
        Head { shape, rows, learn, sample_states, truth }
    }

    fn measure(&self, args: &CoverageArgs, learned: bool) -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let learn: Option<&dyn RowSource> = if learned { Some(&self.learn) } else { None };
        let keys = Keys::From(0);
        let input = BuildInput { keys, learn, ..BuildInput::of(&self.rows) };
        let params = BuildParams::new(Metric::InnerProduct);
        build(&input, &dir.path().join("index"), &params, Job::default())?;
        let index = Segment::open(dir.path().join("index"))?;
        let mut decoder = index.decoder()?;
        for mode in &args.modes {
            for at in 0..args.temperatures.len() {
                let cell = self.cell(args, (mode, at, learned), &mut decoder)?;
                println!("{}", serde_json::to_string(&cell)?);
            }
        }
        Ok(())
    }

    fn cell(
        &self,
        args: &CoverageArgs,
        (mode, at, learned): (&str, usize, bool),
        decoder: &mut Decoder,
    ) -> anyhow::Result<Cell> {
        let temperature = args.temperatures[at];
        let params = params_of(mode, temperature)?;
        let (mut held, mut right, mut widths, mut farthest) = (0, 0, Vec::new(), 0.0f64);
        let (mut reranked, mut distances, mut widened) = (0u64, 0u64, 0);
        for (state, truth) in self.truth.iter().enumerate() {
            let request = DecodeRequest { params, ..DecodeRequest::new(1) };
            let decoded = decoder.decode(self.sample_states.row(state), &request)?;
            let log_z = decoded.log_z.context("log Z was requested")?;
            let (wanted, slack) = (truth.log_z[at], 1e-9 * truth.log_z[at].abs().max(1.0));
            held += usize::from(log_z.low - slack <= wanted && wanted <= log_z.high + slack);
            widths.push(log_z.high - log_z.low);
            farthest = farthest.max((log_z.value - wanted).abs());
            right += decoded.tokens.iter().filter(|t| truth.best.contains(&t.key)).count();
            widened += usize::from(decoded.widened);
            reranked += decoded.stats.reranked;
            distances += decoded.stats.distances;
        }
        widths.sort_unstable_by(f64::total_cmp);
        let states = self.truth.len();
        Ok(Cell {
            shape: self.shape,
            tokens: self.rows.len(),
            dim: self.rows.dim(),
            learned,
            mode: mode.into(),
            temperature,
            states,
            covered: held as f64 / states as f64,
            width_p50: widths[states / 2],
            farthest,
            precision_at_10: right as f64 / (states * K.min(self.rows.len())) as f64,
            widened: widened as f64 / states as f64,
            reranked: reranked as f64 / states as f64,
            distances: distances as f64 / states as f64,
        })
    }
}

fn params_of(mode: &str, temperature: f64) -> anyhow::Result<DecodeParams> {
    let modes = [DecodeMode::Auto, DecodeMode::Scan, DecodeMode::Graph, DecodeMode::Exact];
    let found = modes.into_iter().find(|known| known.name() == mode);
    let mode = found.with_context(|| format!("--modes: {mode:?} is unknown"))?;
    Ok(DecodeParams { mode, temperature, ..DecodeParams::new(K as u32) })
}

fn gaussians(count: usize, random: &mut Seeded) -> Vec<f32> {
    (0..count).map(|_| random.gaussian()).collect()
}

fn rows_of(shape: Shape, (tokens, dim): (usize, usize), random: &mut Seeded) -> Vec<f32> {
    let mut rows = gaussians(tokens * dim, random);
    for row in rows.chunks_exact_mut(dim) {
        let scale = match shape {
            Shape::Flat | Shape::Long30 | Shape::Long1000 => 1.0 / (dim as f32).sqrt(),
            Shape::Peaked => (0.8 * random.gaussian()).exp(),
            Shape::StillMean | Shape::StillSpread => 1.0 / (dim as f32).sqrt(),
            _ => 0.5 + (random.next_u64() % 1000) as f32 / 1000.0,
        };
        row.iter_mut().for_each(|x| *x *= scale);
        match shape {
            Shape::FarBoth => row.iter_mut().for_each(|x| *x += FAR),
            Shape::StillMean | Shape::StillSpread => {
                row.iter_mut().take(STILL).for_each(|x| *x *= 0.01 / scale);
            }
            _ => {}
        }
    }
    let longest = match shape {
        Shape::Long30 => 30.0,
        Shape::Long1000 => 1000.0,
        _ => 1.0,
    };
    let middle = tokens / 2 * dim;
    rows[middle..middle + dim].iter_mut().for_each(|x| *x *= longest);
    rows
}

fn states_of(
    shape: Shape,
    (rows, dim, count): (&[f32], usize, usize),
    random: &mut Seeded,
) -> Vec<f32> {
    let mut states = gaussians(count * dim, random);
    for state in states.chunks_exact_mut(dim) {
        match shape {
            Shape::Mixed | Shape::Peaked => {
                let near = random.below((rows.len() / dim) as u64) as usize * dim;
                state.iter_mut().zip(&rows[near..]).for_each(|(h, x)| *h += 0.3 * x);
            }
            Shape::FarStates | Shape::FarBoth => state.iter_mut().for_each(|h| *h += FAR),
            Shape::StillMean => state.iter_mut().take(STILL).for_each(|h| *h += FAR),
            Shape::StillSpread => state.iter_mut().take(STILL).for_each(|h| *h *= FAR),
            _ => {}
        }
    }
    states
}

fn unit(dim: usize, random: &mut Seeded) -> Vec<f32> {
    let axis = gaussians(dim, random);
    let norm = axis.iter().map(|x| x * x).sum::<f32>().sqrt();
    axis.into_iter().map(|x| x / norm).collect()
}

/// Mirrors a vector: products stay what they are.
fn reflect(row: &mut [f32], mirror: &[f32]) {
    let along: f32 = row.iter().zip(mirror).map(|(x, y)| x * y).sum();
    row.iter_mut().zip(mirror).for_each(|(x, y)| *x -= 2.0 * along * y);
}

fn wide(row: Row<'_>) -> Vec<f32> {
    let mut wide = vec![0.0; row.dim()];
    row.widen_into(&mut wide);
    wide
}

fn truth_of(rows: &Rows, state: &[f32], args: &CoverageArgs) -> Truth {
    let logit = |row: Vec<f32>| -> f64 {
        row.iter().zip(state).map(|(x, h)| f64::from(*x) * f64::from(*h)).sum()
    };
    let logits: Vec<f64> = rows.iter().map(|row| logit(wide(row))).collect();
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_z = |t: &f64| -> f64 {
        let sum: f64 = logits.iter().map(|logit| ((logit - largest) / t).exp()).sum();
        largest / t + sum.ln()
    };
    let mut order: Vec<u64> = (0..logits.len() as u64).collect();
    let better = |a: &u64, b: &u64| logits[*b as usize].total_cmp(&logits[*a as usize]);
    let k = K.min(order.len());
    if k < order.len() {
        order.select_nth_unstable_by(k - 1, better);
    }
    order.truncate(k);
    Truth { log_z: args.temperatures.iter().map(log_z).collect(), best: order }
}
