//! The sample of the repository, indexed once for all scenarios that only read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use half::f16;

use crate::program::{Place, ran};
use crate::source;

/// Rows of the sample.
pub const ROWS: usize = 5_000;
/// Numbers in a row.
pub const DIM: usize = 384;
/// Queries: the first rows of the sample, so that query `i` finds row `i` first.
pub const QUERIES: usize = 200;

/// A directory with `base.f16bin`, `payload.jsonl`, `queries.f16bin`, `truth.ibin` and `index`,
/// and what the build printed.
pub struct Sample {
    /// The directory.
    pub dir: PathBuf,
    /// `build --format json`.
    pub built: String,
}

/// The sample; indexed by the first caller.
pub fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(make)
}

/// An empty place from which the sample is reached as `sample/`.
pub fn place_beside_it() -> Place {
    let place = Place::new();
    std::os::unix::fs::symlink(&sample().dir, place.path("sample")).unwrap();
    place
}

fn make() -> Sample {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    remove_stale(parent);
    let dir = parent.join(format!("sample-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let from = source::root().join("datasets/samples");
    for (name, copy) in [
        ("debian-packages-5k.f16bin", "base.f16bin"),
        ("debian-packages-5k.payload.jsonl", "payload.jsonl"),
    ] {
        fs::copy(from.join(name), dir.join(copy)).unwrap();
    }
    let run = |line: &str| {
        let output = Place::new().command(line).current_dir(&dir).output().unwrap();
        let ran = ran(line, output);
        assert_eq!(ran.code, 0, "foveal {line}: {}", ran.err);
        ran.out
    };
    run(&format!("convert --in base.f16bin --out queries.f16bin --rows ..{QUERIES}"));
    run("truth --base base.f16bin --queries queries.f16bin --metric cosine --k 20 \
         --out truth.ibin");
    let built = run("build --base base.f16bin --metric cosine --out index \
                     --payload payload.jsonl --format json");
    Sample { dir, built }
}

/// Directories of processes that are gone.
fn remove_stale(parent: &Path) {
    for entry in fs::read_dir(parent).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let gone = |pid: &str| !Path::new("/proc").join(pid).exists();
        if name.strip_prefix("sample-").is_some_and(gone) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

impl Sample {
    /// The numbers of a row, read by the published layout.
    pub fn row(&self, row: usize) -> Vec<f64> {
        static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
        let bytes = BYTES.get_or_init(|| fs::read(self.dir.join("base.f16bin")).unwrap());
        let numbers = bytes[8 + row * DIM * 2..][..DIM * 2].chunks_exact(2);
        numbers.map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f64()).collect()
    }

    /// The `k` rows nearest to a row by cosine: a scan in f64.
    pub fn nearest(&self, row: usize, k: usize) -> Vec<(f64, i32)> {
        let query = self.row(row);
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let mut all: Vec<(f64, i32)> = (0..ROWS)
            .map(|other| {
                let other_row = self.row(other);
                let dot: f64 = query.iter().zip(&other_row).map(|(x, y)| x * y).sum();
                (1.0 - dot / (norm(&query) * norm(&other_row)), other as i32)
            })
            .collect();
        all.sort_by(|a, b| a.partial_cmp(b).unwrap());
        all.truncate(k);
        all
    }
}
