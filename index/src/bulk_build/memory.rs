//! How much memory a build takes, predicted before it starts.

use foveal_datasets::RowSource;

use super::error::BuildError;
use super::row_pass::CHUNK_BYTES;
use super::{BuildInput, Keys, grow_params, tokens};
use crate::code_width::CodeWidth;
use crate::free_memory::{FreeMemory, free_memory};
use crate::params::BuildParams;
use crate::quantizer::{Record, extra_bytes, learning_bytes};

/// The program, its threads' stacks, the sample and buffers.
const PROCESS_BYTES: u64 = 32 << 20;
/// What a thread needs to walk and prune.
const THREAD_BYTES: u64 = 1 << 20;
/// Rows written in one window at least, in bytes.
const LEAST_WINDOW: u64 = 64 << 20;

/// The bytes of each phase of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BuildMemory {
    /// Codes in two orders.
    arranging: u64,
    /// Codes to grow over, and what leading axes are learned from.
    leading: u64,
    /// Codes to grow over and codes to serve, the growing graph and the finished one.
    growing: u64,
    /// Codes to grow over, codes to serve, and the graph.
    calibrating: u64,
    /// Two graphs and the new order.
    ordering: u64,
    /// What token codes are learned from, and the codes.
    learning: u64,
    /// What stays while rows are written, a window aside.
    writing: u64,
    /// The index, opened before it is published.
    opening: u64,
    /// All rows.
    rows: u64,
}

impl BuildMemory {
    /// The memory of a build of codes of `width`.
    ///
    /// # Errors
    /// More is needed than `params.memory` allows, or without it than is free.
    pub(super) fn plan(
        input: &BuildInput<'_>,
        params: &BuildParams,
        width: CodeWidth,
    ) -> Result<BuildMemory, BuildError> {
        let base = input.base;
        let n = base.len() as u64;
        let dim = base.dim();
        let stride = |width| Record::of(width, (params.metric, base.element()), dim).stride(dim);
        let served = stride(width) + extra_bytes(dim, width.extra_bits());
        let serving = n * served as u64;
        // A graph over whole rows is grown over the codes that are served.
        let (codes, both) = match width {
            CodeWidth::Whole => (serving, serving),
            _ => {
                let codes = n * stride(CodeWidth::Eight) as u64;
                (codes, codes + serving)
            }
        };
        let growing_list = grow_params(params).growing_stride() as u64 * 4;
        let list = u64::from(params.max_degree) * 4;
        let lift = if params.metric.is_product() { 4 } else { 0 };
        let threads = match params.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let fixed = PROCESS_BYTES
            + threads as u64 * THREAD_BYTES
            + 3 * CHUNK_BYTES as u64
            + n * held_bytes(input);
        let memory = BuildMemory {
            arranging: fixed + 2 * codes + n * (2 * lift + 16),
            leading: match width {
                CodeWidth::Two => fixed + codes + n * (lift + 8) + learning_bytes(dim) as u64,
                _ => 0,
            },
            growing: fixed + both + n * (growing_list + list + lift + 4),
            calibrating: fixed + both + n * (list + lift + 8),
            ordering: fixed + serving + n * (2 * list + 16),
            learning: fixed + n * 8 + tokens::bytes(input, params),
            writing: fixed + n * 12,
            opening: fixed + serving + n * (list + 16) + tokens::opened_bytes(input, params),
            rows: n * (dim * base.element().size()) as u64,
        };
        memory.fits(params.memory, free_memory())?;
        Ok(memory)
    }

    /// Whether the build may use the memory it needs.
    fn fits(&self, allowed: Option<u64>, free: Option<FreeMemory>) -> Result<(), BuildError> {
        let needed = self.peak();
        match (allowed, free) {
            (Some(allowed), _) if needed > allowed => {
                Err(BuildError::MemoryLimit { needed, allowed })
            }
            // Who sets a limit knows the machine better.
            (None, Some(free)) if needed > free.bytes => {
                Err(BuildError::FreeMemory { needed, free })
            }
            _ => Ok(()),
        }
    }

    /// The most bytes at any time.
    pub(super) fn peak(&self) -> u64 {
        self.before_writing().max(self.writing + self.window_bytes()).max(self.opening)
    }

    fn before_writing(&self) -> u64 {
        self.arranging
            .max(self.leading)
            .max(self.growing)
            .max(self.calibrating)
            .max(self.ordering)
            .max(self.learning)
    }

    /// How many rows are written at a time: as many as fit into what growing needed before.
    pub(super) fn window_rows(&self, base: &dyn RowSource) -> usize {
        let row_bytes = (base.dim() * base.element().size()) as u64;
        (self.window_bytes() / row_bytes).max(1) as usize
    }

    fn window_bytes(&self) -> u64 {
        let left = self.before_writing().saturating_sub(self.writing);
        self.rows.min(left.max(LEAST_WINDOW))
    }
}

/// Bytes a row that stay from the start of a build to its end: keys, biases, places of payloads.
fn held_bytes(input: &BuildInput<'_>) -> u64 {
    let keys = if matches!(input.keys, Keys::List(_)) { 8 } else { 0 };
    let bias = if input.bias { 4 } else { 0 };
    keys + bias + input.payload.map_or(0, |payload| payload.memory_per_row())
}

/// The most memory this process has used so far, in bytes; 0 where the system does not report it.
pub(super) fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use foveal_datasets::ErrorKind;

    use super::*;

    #[test]
    fn without_a_limit_what_is_free_is_one() {
        let memory = BuildMemory {
            arranging: 1000,
            leading: 0,
            growing: 2000,
            calibrating: 0,
            ordering: 0,
            learning: 0,
            writing: 10,
            opening: 500,
            rows: 40,
        };
        assert_eq!(memory.peak(), 2000);
        let free = |bytes| Some(FreeMemory { bytes, of: "the machine" });
        assert!(memory.fits(None, None).is_ok());
        assert!(memory.fits(None, free(2000)).is_ok());
        let error = memory.fits(None, free(1999)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        let wanted = "the build needs about 2000 bytes of memory; the machine has 1999 free; \
                      a limit that is given (--memory) takes precedence";
        assert_eq!(error.to_string(), wanted);
        assert!(memory.fits(Some(2000), free(5)).is_ok());
        assert_eq!(memory.fits(Some(1999), free(5000)).unwrap_err().kind(), ErrorKind::Usage);
    }
}
