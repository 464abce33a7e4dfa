//! Searches among some of the rows only.
//!
//! ```text
//! cargo run --release -p foveal-index --example some_rows
//! ```

use std::error::Error;

use foveal_datasets::seeded::Seeded;
use foveal_datasets::{Metric, Rows, Values};
use foveal_index::{BuildInput, BuildParams, Job, Query, SearchParams, Segment, Stop, build};

const ROWS: usize = 20_000;
const DIM: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let mut random = Seeded::new(2);
    let numbers = (0..ROWS * DIM).map(|_| random.gaussian()).collect();
    let rows = Rows::new(DIM, Values::F32(numbers))?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("numbers.index");
    build(&BuildInput::of(&rows), &path, &BuildParams::new(Metric::L2), Job::default())?;

    let index = Segment::open(&path)?;
    let mut searcher = index.searcher();
    let params = SearchParams::new(5);
    for part in [1, 10, 1000] {
        let keys: Vec<u64> = (0..ROWS as u64).filter(|key| key % part == 0).collect();
        let allowed = index.id_set(&keys)?;
        let (row, stop) = (rows.row(3), Stop::default());
        let answer = searcher.search_one(Query { row, params, allowed: Some(&allowed), stop })?;
        let found: Vec<u64> = answer.neighbors.iter().map(|neighbor| neighbor.key).collect();
        println!("{} rows allowed: {found:?}, {} distances", keys.len(), answer.stats.distances);
    }
    Ok(())
}
