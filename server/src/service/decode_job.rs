//! How a decode becomes parts for the pool.

use std::sync::Arc;
use std::time::Instant;

use foveal_datasets::Rows;
use foveal_index::{DecodeParams, DecodeRequest, Decoded, IdSet, Stop};

use super::Collection;
use super::search_job::part_size;
use crate::search_pool::{PartError, Searchers, Task, Work};

/// A decode of one or many hidden states, validated.
pub(super) struct DecodeJob {
    /// The head.
    pub collection: Arc<Collection>,
    /// What to decode.
    pub hidden: Rows,
    /// How.
    pub params: DecodeParams,
    /// The only tokens that count; none where all do.
    pub allowed: Option<IdSet>,
    /// Tokens to report for every hidden state.
    pub requested: Vec<u64>,
}

impl DecodeJob {
    /// The decode as a task for `threads` workers.
    pub(super) fn into_task(self, deadline: Instant, threads: usize) -> Task<Decoded> {
        let states = self.hidden.len();
        let size = part_size(states, threads);
        let bytes = states * self.hidden.row_bytes();
        let run = move |searchers: &mut Searchers, part: usize, stop: &Stop<'_>| {
            let decoder = searchers.decoder_of(self.collection.slot, &self.collection.index)?;
            let DecodeJob { params, allowed, requested, .. } = &self;
            let allowed = allowed.as_ref();
            let request = DecodeRequest { params: *params, allowed, requested, stop: *stop };
            let rows = part * size..((part + 1) * size).min(states);
            rows.map(|row| Ok(decoder.decode(self.hidden.row(row), &request)?))
                .collect::<Result<Vec<Decoded>, PartError>>()
        };
        let work = Work::Parts(states.div_ceil(size), Box::new(run));
        Task { bytes, deadline, work }
    }
}
