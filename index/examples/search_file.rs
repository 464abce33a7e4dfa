//! Builds an index of a file with payloads, and searches it with two threads.
//!
//! ```text
//! cargo run --release -p foveal-index --example search_file
//! ```

use std::error::Error;
use std::path::Path;

use foveal_datasets::{Metric, RowSource, VectorFile};
use foveal_index::{BuildInput, BuildParams, Job, JsonLines, SearchParams, Segment, build};

fn main() -> Result<(), Box<dyn Error>> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/samples");
    let base = VectorFile::open(samples.join("debian-packages-5k.f16bin"))?;
    let payload = JsonLines::open(&samples.join("debian-packages-5k.payload.jsonl"))?;

    let dir = tempfile::tempdir()?;
    let path = dir.path().join("packages.index");
    let input = BuildInput { payload: Some(&payload), ..BuildInput::of(&base) };
    build(&input, &path, &BuildParams::new(Metric::Cosine), Job::default())?;

    let index = Segment::open(&path)?;
    let queries = base.read(0..6)?;
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (index, queries) = (&index, &queries);
            scope.spawn(move || {
                let mut searcher = index.searcher();
                for query in (thread..queries.len()).step_by(2) {
                    let answer = searcher
                        .search(queries.row(query), &SearchParams::new(4))
                        .expect("the query is a row of the index");
                    for neighbor in &answer.neighbors {
                        let text = index.payload(neighbor.key).expect("an index that is sound");
                        let text = text.unwrap_or_default();
                        println!("{query}: {:.3} {}", neighbor.distance, text.trim());
                    }
                }
            });
        }
    });
    Ok(())
}
