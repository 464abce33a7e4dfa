//! Decodes to be measured.

use foveal_datasets::Rows;

use super::{Share, Workload};
use foveal_index::{
    DecodeParams, DecodeRequest, Decoded, Decoder, IdSet, Job, SearchError, Segment, Stop, Token,
};

/// What to decode.
pub struct DecodePlan<'a> {
    /// Searched by every thread.
    pub index: &'a Segment,
    /// All hidden states, `[n x dim]`; split evenly among the threads.
    pub hidden: &'a Rows,
    /// How each is decoded.
    pub params: DecodeParams,
    /// The only tokens that count; none where all do.
    pub allowed: Option<&'a IdSet>,
    /// `[n]`: a token to report for each hidden state; or none at all.
    pub next: &'a [u64],
    /// Threads, each with a decoder of its own; at least 1.
    pub threads: usize,
    /// Told after each pass; its interrupt ends the measurement.
    pub job: Job<'a>,
}

impl Workload for DecodePlan<'_> {
    type Worker = Decoder;
    type Found = Decoded;

    fn queries(&self) -> usize {
        self.hidden.len()
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn job(&self) -> Job<'_> {
        self.job
    }

    fn worker(&self) -> Result<Decoder, SearchError> {
        self.index.decoder()
    }

    fn run(&self, decoder: &mut Decoder, share: &mut Share<Decoded>) -> Result<(), SearchError> {
        let stop = Stop { deadline: None, cancelled: self.job.interrupt };
        for (found, row) in share.found.iter_mut().zip(share.rows.clone()) {
            let requested = self.next.get(row..row + 1).unwrap_or_default();
            let request =
                DecodeRequest { params: self.params, allowed: self.allowed, requested, stop };
            *found = decoder.decode(self.hidden.row(row), &request)?;
            share.nanos.push(found.nanos);
            share.totals.results += found.tokens.len() as u64;
            share.totals.certified += u64::from(found.order_proved);
            share.totals.count_query(&found.stats);
        }
        Ok(())
    }

    fn held_bytes(found: &Decoded) -> usize {
        (found.tokens.capacity() + found.requested.capacity()) * size_of::<Token>()
    }
}
