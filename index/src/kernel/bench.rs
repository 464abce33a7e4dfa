//! The kernels as a benchmark sees them: any level, any code width, codes of its own.

use super::packed::{self, PackedQuery};
use super::planar::{self, PlanarQuery};
use super::{LINE, Level, byte_l2};

/// `run(codes, ids, out)`: the distance of each id's code, in the order of `ids`.
type Run = Box<dyn Fn(&[u8], &[u32], &mut [f32])>;

/// One kernel on one level of the CPU, with a query of its own.
pub struct KernelBench {
    /// What it computes and on which level: `4-bit/avx512`.
    pub name: String,
    /// Bytes of a code; codes lie one after the other.
    pub code_bytes: usize,
    run: Run,
}

impl KernelBench {
    /// Distances of the codes of `ids` into `out`.
    ///
    /// # Panics
    /// If an id has no code in `codes`, or `out` is shorter than `ids`.
    pub fn run(&self, codes: &[u8], ids: &[u32], out: &mut [f32]) {
        (self.run)(codes, ids, out);
    }

    /// Every kernel that walks use, for rows of `dim` numbers, on every level of this CPU.
    pub fn all(dim: usize) -> Vec<KernelBench> {
        // Above this level walks run the same kernels.
        Level::available()
            .filter(|level| *level <= Level::Avx512)
            .flat_map(|level| [four_bits(dim, level), eight_bits(dim, level), bytes(dim, level)])
            .collect()
    }
}

/// Asks for the cache line that holds byte `offset` of `codes`, as a walk does.
#[inline(always)]
pub fn prefetch(codes: &[u8], offset: usize) {
    super::prefetch(codes, offset);
}

fn named(code: &str, level: Level) -> String {
    format!("{code}/{}", level.name())
}

fn lanes(count: usize) -> Vec<i8> {
    (0..count).map(|i| (i * 37 % 251) as u8 as i8).collect()
}

fn four_bits(dim: usize, level: Level) -> KernelBench {
    let lines = dim.div_ceil(2 * LINE);
    let query = PackedQuery {
        lanes: lanes(lines * 2 * LINE),
        borrowed: true,
        base: 1.0,
        add_unit: 1.0,
        slope: 0.01,
        offset: 7,
    };
    let kernel = packed::kernel::<2>(level);
    let run =
        Box::new(move |codes: &[u8], ids: &[u32], out: &mut [f32]| kernel(codes, &query, ids, out));
    KernelBench { name: named("4-bit", level), code_bytes: lines * LINE, run }
}

fn eight_bits(dim: usize, level: Level) -> KernelBench {
    let stride = (dim + 8).next_multiple_of(LINE);
    let query = PlanarQuery {
        stride,
        lanes: lanes(stride),
        high_weight: 1.0,
        offset: [0; 2],
        base: 1.0,
        add_unit: 1.0,
        slope: 0.01,
    };
    let kernel = planar::kernel(level, 1);
    let run =
        Box::new(move |codes: &[u8], ids: &[u32], out: &mut [f32]| kernel(codes, &query, ids, out));
    KernelBench { name: named("8-bit", level), code_bytes: stride, run }
}

fn bytes(dim: usize, level: Level) -> KernelBench {
    let stride = dim.next_multiple_of(LINE);
    let query: Vec<u8> = (0..stride).map(|i| (i * 37 % 251) as u8).collect();
    let kernel = byte_l2::kernel(level);
    let run =
        Box::new(move |codes: &[u8], ids: &[u32], out: &mut [f32]| kernel(codes, &query, ids, out));
    KernelBench { name: named("byte-l2", level), code_bytes: stride, run }
}
