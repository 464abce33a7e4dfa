//! What a distance costs: each code kernel on each level of the CPU, with its codes in the first
//! level of cache, and with codes that come from memory in 4 KiB and in 2 MiB pages, in order and
//! at random. Beside them the ceiling: what this machine takes for a line of memory when nothing is
//! computed at all.
//!
//! ```text
//! cargo bench -p foveal-bench --bench kernels
//! ```
//!
//! criterion measures; the table at the end divides by the ceiling measured in the same run.

use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use foveal_datasets::seeded::Seeded;
use foveal_index::kernel::bench::{KernelBench, prefetch};
use memmap2::{Advice, MmapMut};
use serde_json::Value;

/// The rows of sift-photos and of most image descriptors.
const DIM: usize = 128;
/// Codes scored in a call: about the fresh neighbors of a node.
const BATCH: usize = 24;
const LINE: usize = 64;
/// Far more than any cache.
const MEMORY: usize = 512 << 20;
/// Batches a timed iteration walks through.
const BATCHES: usize = 1024;

/// Where codes lie and in which order they are read.
#[derive(Clone, Copy, PartialEq)]
enum Medium {
    L1,
    InOrder(Pages),
    AtRandom(Pages),
}

#[derive(Clone, Copy, PartialEq)]
enum Pages {
    Small,
    Large,
}

impl Medium {
    const ALL: [Medium; 5] = [
        Medium::L1,
        Medium::InOrder(Pages::Small),
        Medium::InOrder(Pages::Large),
        Medium::AtRandom(Pages::Small),
        Medium::AtRandom(Pages::Large),
    ];

    fn name(self) -> &'static str {
        match self {
            Medium::L1 => "l1",
            Medium::InOrder(Pages::Small) => "in-order-4k",
            Medium::InOrder(Pages::Large) => "in-order-2m",
            Medium::AtRandom(Pages::Small) => "at-random-4k",
            Medium::AtRandom(Pages::Large) => "at-random-2m",
        }
    }

    /// Ids of codes of `code_bytes`, batch after batch.
    fn ids(self, code_bytes: usize) -> Vec<u32> {
        let count = MEMORY / code_bytes;
        let mut random = Seeded::new(1);
        let wanted = 0..BATCHES * BATCH;
        match self {
            Medium::L1 => wanted.map(|i| (i % BATCH) as u32).collect(),
            Medium::InOrder(_) => wanted.map(|i| (i % count) as u32).collect(),
            Medium::AtRandom(_) => wanted.map(|_| random.below(count as u64) as u32).collect(),
        }
    }
}

fn memory(pages: Pages) -> MmapMut {
    let mut map = MmapMut::map_anon(MEMORY).expect("memory for the codes");
    let advice = if pages == Pages::Large { Advice::HugePage } else { Advice::NoHugePage };
    // A kernel without large pages serves small ones; the figures then agree.
    let _ = map.advise(advice);
    let mut random = Seeded::new(2);
    for (i, byte) in map.iter_mut().enumerate() {
        *byte = if i % 8 == 0 { random.below(256) as u8 } else { i as u8 };
    }
    map
}

/// Walks through the codes of `ids` as a search does: while a batch is scored, the next is on its
/// way. `score` gets the ids of a batch.
fn walk(codes: &[u8], code_bytes: usize, ids: &[u32], mut score: impl FnMut(&[u32])) {
    let prefetch_batch = |batch: &[u32]| {
        for id in batch {
            for line in (0..code_bytes).step_by(LINE) {
                prefetch(codes, *id as usize * code_bytes + line);
            }
        }
    };
    let batches: Vec<&[u32]> = ids.chunks(BATCH).collect();
    prefetch_batch(batches[0]);
    for (i, batch) in batches.iter().enumerate() {
        if let Some(next) = batches.get(i + 1) {
            prefetch_batch(next);
        }
        score(batch);
    }
}

/// What a batch of lines costs when they are touched and nothing is computed.
fn ceiling(codes: &[u8], code_bytes: usize, ids: &[u32]) -> u64 {
    let mut sum = 0;
    walk(codes, code_bytes, ids, |batch| {
        for id in batch {
            for line in (0..code_bytes).step_by(LINE) {
                sum += u64::from(codes[*id as usize * code_bytes + line]);
            }
        }
    });
    sum
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    let (small, large) = (memory(Pages::Small), memory(Pages::Large));
    let kernels = KernelBench::all(DIM);
    let mut widths: Vec<usize> = kernels.iter().map(|kernel| kernel.code_bytes).collect();
    widths.sort_unstable();
    widths.dedup();
    for medium in Medium::ALL {
        let codes = match medium {
            Medium::InOrder(Pages::Large) | Medium::AtRandom(Pages::Large) => &large,
            _ => &small,
        };
        let mut group = criterion.benchmark_group(medium.name());
        group.throughput(Throughput::Elements((BATCHES * BATCH) as u64));
        for width in &widths {
            let ids = medium.ids(*width);
            group.bench_function(BenchmarkId::new("ceiling", width), |b| {
                b.iter(|| ceiling(codes, *width, &ids));
            });
        }
        for kernel in &kernels {
            let ids = medium.ids(kernel.code_bytes);
            let mut out = [0.0; BATCH];
            group.bench_function(kernel.name.replace('/', "-"), |b| {
                b.iter(|| {
                    walk(codes, kernel.code_bytes, &ids, |batch| {
                        kernel.run(codes, batch, &mut out)
                    });
                    out[0]
                });
            });
        }
        group.finish();
    }
    table(&kernels);
    criterion.final_summary();
}

/// ns a distance, GB/s and share of the ceiling, from what criterion kept.
fn table(kernels: &[KernelBench]) {
    println!(
        "{:<14} {:<18} {:>6} {:>8} {:>8} {:>8}",
        "codes", "kernel", "bytes", "ns", "GB/s", "ceiling"
    );
    for medium in Medium::ALL {
        for kernel in kernels {
            let own = median_ns(medium, &kernel.name.replace('/', "-"));
            let bound = median_ns(medium, &format!("ceiling/{}", kernel.code_bytes));
            if let (Some(own), Some(bound)) = (own, bound) {
                let (name, bytes) = (&kernel.name, kernel.code_bytes);
                let (rate, share) = (bytes as f64 / own, 100.0 * bound / own);
                println!(
                    "{:<14} {name:<18} {bytes:>6} {own:>8.2} {rate:>8.1} {share:>6.0} %",
                    medium.name()
                );
            }
        }
    }
}

/// Nanoseconds a distance; `None` if it was not measured in this or an earlier run.
fn median_ns(medium: Medium, name: &str) -> Option<f64> {
    let home = std::env::var("CARGO_TARGET_DIR")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../target").into());
    let path = Path::new(&home).join("criterion").join(medium.name()).join(name);
    let text = std::fs::read_to_string(path.join("new/estimates.json")).ok()?;
    let estimates: Value = serde_json::from_str(&text).ok()?;
    Some(estimates["median"]["point_estimate"].as_f64()? / (BATCHES * BATCH) as f64)
}
