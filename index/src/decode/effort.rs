//! How much of which work a decode takes.

use super::{DecodeRequest, KNOWN_OF_Z};
use crate::params::{DecodeMode, DecodeParams, LogZMode};
use crate::segment::Shared;
use crate::vocabulary::Threshold;

/// The effort of the last decode: the next one mostly has the same parameters.
#[derive(Default)]
pub(super) struct Plan {
    last: Option<(DecodeParams, bool, Effort)>,
}

impl Plan {
    pub(super) fn effort(&mut self, shared: &Shared, request: &DecodeRequest<'_>) -> Effort {
        let listed = request.allowed.is_some();
        match self.last {
            Some((params, was_listed, effort))
                if (params, was_listed) == (request.params, listed) =>
            {
                effort
            }
            _ => {
                let effort = shared.effort(request);
                self.last = Some((request.params, listed, effort));
                effort
            }
        }
    }
}

impl Shared {
    /// How candidates are found and how many of them are ranked exactly. Where lists decide which
    /// tokens count every code is scanned: a walk, and the best clusters, may pass by all of them.
    fn effort(&self, request: &DecodeRequest<'_>) -> Effort {
        let params = &request.params;
        let listed = request.allowed.is_some();
        let n = self.manifest.n as usize;
        let scan = match &self.vocabulary {
            Some(vocabulary) => {
                let whole = listed || params.log_z == LogZMode::Interval;
                let wanted = (params.k, params.precision);
                let (threshold, share, ranked) = vocabulary.spec.effort(wanted, whole, n);
                Effort { mode: DecodeMode::Scan, threshold, share, ranked }
            }
            None => {
                let ranked = UNKNOWN_RANKED.max(params.k.saturating_mul(UNKNOWN_RANKED_A_TOKEN));
                Effort { ranked, mode: DecodeMode::Scan, ..Effort::exact(params.k) }
            }
        };
        let exact = Effort::exact(params.k);
        let mut effort = match params.mode {
            _ if params.log_z == LogZMode::Exact => exact,
            DecodeMode::Auto
                if self.scan_bytes(scan) + self.sample_bytes(params) < n * self.row_bytes() =>
            {
                scan
            }
            DecodeMode::Auto | DecodeMode::Exact => exact,
            DecodeMode::Scan => scan,
            DecodeMode::Graph if listed => scan,
            DecodeMode::Graph => Effort { mode: DecodeMode::Graph, ..scan },
        };
        if let Some(ranked) = params.rerank_size {
            (effort.ranked, effort.threshold) = (ranked, Threshold::ALL);
        }
        let sampled = params.log_z == LogZMode::Interval && effort.mode != DecodeMode::Exact;
        effort.ranked = effort.ranked.max(if sampled { KNOWN_OF_Z } else { 0 }).max(params.k);
        effort
    }

    /// What is read to sample log Z, if it is sampled: rows and codes here and there, which take
    /// twice as long as in order.
    fn sample_bytes(&self, params: &DecodeParams) -> usize {
        if params.log_z != LogZMode::Interval {
            return 0;
        }
        let codes = SAMPLED_CODES * self.preview.quantizer.stride();
        2 * (codes + SAMPLED_ROWS * self.row_bytes())
    }

    /// What a scan reads: memory is what bounds it, and the exact way as well.
    fn scan_bytes(&self, effort: Effort) -> usize {
        let (code, matrix) = match &self.vocabulary {
            Some(vocabulary) => (vocabulary.spec.stride(), vocabulary.map_bytes() as usize),
            None => (self.preview.quantizer.stride(), 0),
        };
        let codes = effort.share * (self.manifest.n as usize * code) as f64;
        let candidates = effort.ranked as usize * self.preview.quantizer.stride();
        codes as usize + matrix + candidates + 2 * effort.ranked.min(64) as usize * self.row_bytes()
    }
}

/// How a decode goes about it.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    pub(super) mode: DecodeMode,
    /// Which tokens are scanned.
    pub(super) threshold: Threshold,
    /// What share of all they are, about.
    share: f64,
    /// How many are ranked exactly.
    pub(super) ranked: u32,
}

impl Effort {
    /// The logits of all tokens.
    pub(super) fn exact(k: u32) -> Effort {
        Effort { mode: DecodeMode::Exact, threshold: Threshold::ALL, share: 1.0, ranked: k }
    }
}

/// Rows ranked exactly where no sample hidden states tell how many it takes, and at least this
/// many for each token wanted.
const UNKNOWN_RANKED: u32 = 128;
const UNKNOWN_RANKED_A_TOKEN: u32 = 8;
/// Codes and rows that a sample of log Z reads, about.
const SAMPLED_CODES: usize = 1024;
const SAMPLED_ROWS: usize = 128;
