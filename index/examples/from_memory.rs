//! Builds an index of rows in memory and searches it.
//!
//! ```text
//! cargo run --release -p foveal-index --example from_memory
//! ```

use std::error::Error;

use foveal_datasets::seeded::Seeded;
use foveal_datasets::{Metric, Rows, Values};
use foveal_index::{BuildInput, BuildParams, Job, SearchParams, Segment, build};

const ROWS: usize = 10_000;
const DIM: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let mut random = Seeded::new(1);
    let numbers = (0..ROWS * DIM).map(|_| random.gaussian()).collect();
    let rows = Rows::new(DIM, Values::F32(numbers))?;

    let dir = tempfile::tempdir()?;
    let path = dir.path().join("numbers.index");
    let report =
        build(&BuildInput::of(&rows), &path, &BuildParams::new(Metric::L2), Job::default())?;
    println!("{ROWS} rows, digest {}", report.manifest.digest);
    report.warnings.iter().for_each(|warning| println!("warning: {warning}"));

    let index = Segment::open(&path)?;
    // A searcher is for one thread, and is used again: it keeps the memory that queries need.
    let mut searcher = index.searcher();
    for query in [0, 7, 42] {
        let answer = searcher.search(rows.row(query), &SearchParams::new(3))?;
        let found: Vec<String> = answer
            .neighbors
            .iter()
            .map(|neighbor| format!("{} at {:.2}", neighbor.key, neighbor.distance))
            .collect();
        println!("near to row {query}: {}", found.join(", "));
    }
    Ok(())
}
