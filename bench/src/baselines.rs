//! Which indexes of faiss are baselines, how they are swept, what is timed.

use std::time::Instant;

use anyhow::bail;
use foveal_datasets::{Metric, Rows};
use foveal_measure::median;

/// Values of efSearch, below `k` left out.
const EF_SEARCH: &[u32] = &[10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024];
/// Values of nprobe.
const NPROBE: &[u32] = &[1, 2, 4, 8, 16, 32, 64, 128, 256];
/// Values of k_factor_rf: candidates that are ranked again exactly, in multiples of `k`.
const K_FACTOR: &[u32] = &[4, 10, 30];

/// The baselines for `n` rows of `dim` numbers, as faiss's index factory writes them: a full scan,
/// graphs over full vectors and over 8-bit codes, and inverted lists of 4-bit product codes, one a
/// four dimensions and one a two, whose candidates are ranked again with full vectors.
pub fn standard(n: usize, dim: usize) -> Vec<String> {
    let lists = (4.0 * (n as f64).sqrt()).log2().round().exp2();
    let parts = |most: usize| (1..=most.max(1)).rev().find(|parts| dim.is_multiple_of(*parts));
    let inverted = [4, 2].map(|dims_a_part| {
        let codes = parts(dim / dims_a_part).unwrap_or(1);
        format!("IVF{lists},PQ{codes}x4fs,RFlat")
    });
    let graphs = ["Flat", "HNSW16", "HNSW32", "HNSW32_SQ8"].map(String::from);
    graphs.into_iter().chain(inverted).collect()
}

/// Search parameters by faiss's names.
pub type Setting = Vec<(&'static str, u32)>;

/// The settings to search an index with, from fast to thorough.
pub fn sweep(factory: &str, k: u32) -> Vec<Setting> {
    if factory.starts_with("HNSW") {
        let mut sizes: Vec<u32> = EF_SEARCH.iter().map(|size| k.max(*size)).collect();
        sizes.dedup();
        return sizes.into_iter().map(|size| vec![("efSearch", size)]).collect();
    }
    if !factory.starts_with("IVF") {
        return vec![Vec::new()];
    }
    let refined: &[u32] = if factory.contains(",R") { K_FACTOR } else { &[1] };
    let setting = |nprobe: u32, factor: u32| match refined.len() {
        1 => vec![("nprobe", nprobe)],
        _ => vec![("nprobe", nprobe), ("k_factor_rf", factor)],
    };
    let of = |factor: &u32| NPROBE.iter().map(|nprobe| setting(*nprobe, *factor)).collect();
    refined.iter().flat_map(|factor| -> Vec<Setting> { of(factor) }).collect()
}

/// A setting as faiss's users write it: `nprobe=8,k_factor_rf=10`.
pub fn shown(setting: &Setting) -> String {
    let parts: Vec<String> =
        setting.iter().map(|(name, value)| format!("{name}={value}")).collect();
    parts.join(",")
}

/// Refuses a faiss that was compiled for any processor: its fast scan is emulated.
///
/// # Errors
/// `version` tells no vector instructions.
pub fn check_version(version: &str) -> anyhow::Result<()> {
    let fast = ["AVX2", "AVX512", "NEON", "SVE"];
    if version.split_whitespace().any(|word| fast.contains(&word)) {
        return Ok(());
    }
    bail!(
        "faiss was compiled without vector instructions ({version}), which is no baseline; run \
         `cargo clean --release -p faiss-sys`, then bench/faiss_build.sh"
    )
}

/// All rows as f32, `[n x dim]`, of length 1 under cosine: faiss's inner product is then the
/// cosine.
///
/// # Errors
/// A row of zeros under cosine.
pub fn widened(rows: &Rows, metric: Metric) -> anyhow::Result<Vec<f32>> {
    let dim = rows.dim();
    let mut wide = vec![0.0; rows.len() * dim];
    for (i, out) in wide.chunks_exact_mut(dim).enumerate() {
        rows.row(i).widen_into(out);
        if metric.needs_direction() {
            let norm = out.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
            if norm == 0.0 {
                bail!("row {i} is all zeros, which has no cosine");
            }
            out.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
        }
    }
    Ok(wide)
}

/// How fast passes over all queries were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passes {
    /// Queries a second in the median pass.
    pub qps: f64,
    /// In the slowest and in the fastest.
    pub spread: [f64; 2],
    /// Timed passes.
    pub count: u32,
    /// Seconds they took.
    pub seconds: f64,
}

/// One untimed pass over `queries` queries, whose result is returned, then passes until they have
/// taken a second and were three.
///
/// # Errors
/// A pass failed.
pub fn timed<T>(
    queries: usize,
    mut pass: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Passes)> {
    let answers = pass()?;
    let mut seconds = Vec::new();
    while seconds.len() < 3 || seconds.iter().sum::<f64>() < 1.0 {
        let start = Instant::now();
        pass()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok((answers, summary(queries, seconds)))
}

fn summary(queries: usize, mut seconds: Vec<f64>) -> Passes {
    let qps = |seconds: f64| queries as f64 / seconds;
    // Sorts.
    let median = median(&mut seconds);
    let (fastest, slowest) = (seconds[0], seconds[seconds.len() - 1]);
    Passes {
        qps: qps(median),
        spread: [qps(slowest), qps(fastest)],
        count: seconds.len() as u32,
        seconds: seconds.iter().sum(),
    }
}

#[cfg(test)]
mod tests {
    use foveal_datasets::Values;

    use super::*;

    #[test]
    fn lists_and_codes_go_with_the_data() {
        let inverted = |n, dim| standard(n, dim).remove(4);
        assert_eq!(inverted(1_000_000, 128), "IVF4096,PQ32x4fs,RFlat");
        assert_eq!(inverted(331_476, 100), "IVF2048,PQ25x4fs,RFlat");
        assert_eq!(inverted(62_666, 384), "IVF1024,PQ96x4fs,RFlat");
        assert_eq!(inverted(1_000, 7), "IVF128,PQ1x4fs,RFlat");
        assert_eq!(inverted(1_000, 2), "IVF128,PQ1x4fs,RFlat");
        assert_eq!(standard(1_000, 8)[..2], ["Flat", "HNSW16"]);
        assert_eq!(standard(1_000, 8)[5..], ["IVF128,PQ4x4fs,RFlat"]);
    }

    #[test]
    fn sweeps_go_with_the_index() {
        let all = |factory, k| -> Vec<String> { sweep(factory, k).iter().map(shown).collect() };
        assert_eq!(all("Flat", 10), [""]);
        assert_eq!(all("HNSW32_SQ8", 10)[..2], ["efSearch=10", "efSearch=16"]);
        assert_eq!(all("HNSW16", 500), ["efSearch=500", "efSearch=512", "efSearch=1024"]);
        assert_eq!(all("HNSW16", 2_000), ["efSearch=2000"]);
        let refined = all("IVF64,PQ8x4fs,RFlat", 10);
        assert_eq!(refined.len(), NPROBE.len() * K_FACTOR.len());
        assert_eq!(refined[0], "nprobe=1,k_factor_rf=4");
        assert_eq!(all("IVF64,Flat", 10)[1], "nprobe=2");
    }

    #[test]
    fn a_generic_faiss_is_refused() {
        assert!(check_version("1.12.0 OPTIMIZE AVX512").is_ok());
        assert!(check_version("1.12.0 OPTIMIZE AVX2").is_ok());
        let said = check_version("1.12.0 OPTIMIZE GENERIC").unwrap_err().to_string();
        assert!(said.contains("OPTIMIZE GENERIC") && said.contains("bench/faiss_build.sh"));
    }

    #[test]
    fn rows_get_length_1_under_cosine_only() {
        let rows = |values| Rows::new(2, Values::F32(values)).unwrap();
        let row = rows(vec![3.0, 4.0]);
        assert_eq!(widened(&row, Metric::Cosine).unwrap(), [0.6, 0.8]);
        assert_eq!(widened(&row, Metric::InnerProduct).unwrap(), [3.0, 4.0]);
        let bytes = Rows::new(2, Values::U8(vec![0, 255])).unwrap();
        assert_eq!(widened(&bytes, Metric::L2).unwrap(), [0.0, 255.0]);
        let zero = widened(&rows(vec![1.0, 0.0, 0.0, 0.0]), Metric::Cosine).unwrap_err();
        assert_eq!(zero.to_string(), "row 1 is all zeros, which has no cosine");
    }

    #[test]
    fn the_median_pass_counts() {
        let odd = summary(10, vec![2.0, 0.5, 1.0]);
        assert_eq!(odd, Passes { qps: 10.0, spread: [5.0, 20.0], count: 3, seconds: 3.5 });
        assert_eq!(summary(30, vec![1.0, 4.0, 2.0, 8.0]).qps, 10.0);
    }

    #[test]
    fn at_least_three_passes_and_a_second_are_timed() {
        let mut calls = 0;
        let pass = || {
            calls += 1;
            std::thread::sleep(std::time::Duration::from_millis(400));
            Ok(calls)
        };
        let (answers, passes) = timed(1, pass).unwrap();
        assert_eq!((answers, passes.count, calls), (1, 3, 4));
        assert!(passes.seconds >= 1.0);
    }
}
