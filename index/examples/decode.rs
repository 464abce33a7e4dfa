//! Finds the most likely tokens of an output layer for a hidden state.
//!
//! ```text
//! cargo run --release -p foveal-index --example decode
//! ```

use std::error::Error;

use foveal_datasets::seeded::Seeded;
use foveal_datasets::{Metric, Rows, Values};
use foveal_index::{BuildInput, BuildParams, DecodeRequest, Job, Segment, build};

const TOKENS: usize = 8_000;
const DIM: usize = 48;
const STATES: usize = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    // Made-up weights, and hidden states near some of them.
    let mut random = Seeded::new(3);
    let weights: Vec<f32> = (0..TOKENS * DIM).map(|_| random.gaussian()).collect();
    let mut states = Vec::with_capacity(STATES * DIM);
    for _ in 0..STATES {
        let token = random.below(TOKENS as u64) as usize;
        let row = &weights[token * DIM..][..DIM];
        states.extend(row.iter().map(|x| 0.2 * x + 0.3 * random.gaussian()));
    }
    let layer = Rows::new(DIM, Values::F32(weights))?;
    let learn = Rows::new(DIM, Values::F32(states.clone()))?;

    let dir = tempfile::tempdir()?;
    let path = dir.path().join("head.index");
    let input = BuildInput { learn: Some(&learn), ..BuildInput::of(&layer) };
    build(&input, &path, &BuildParams::new(Metric::InnerProduct), Job::default())?;

    let index = Segment::open(&path)?;
    let mut decoder = index.decoder()?;
    let decoded = decoder.decode(&states[..DIM], &DecodeRequest::new(5))?;
    if let Some(log_z) = decoded.log_z {
        println!("log Z is {:.4}, between {:.4} and {:.4}", log_z.value, log_z.low, log_z.high);
    }
    for token in &decoded.tokens {
        println!("token {:5}: logit {:.3}", token.key, token.logit);
    }
    Ok(())
}
