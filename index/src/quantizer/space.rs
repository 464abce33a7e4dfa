//! The rows of a build as their 8-bit codes: the space a graph is grown in.

use super::{CodeDistance, PreparedQuery, Quantizer, Record};
use crate::distance::{QueryDistance, Space};

/// 8-bit codes of every row, what lifts them under ip, and shorter codes to walk over.
#[derive(Clone, Copy)]
pub(crate) struct CodeSpace<'a> {
    quantizer: &'a Quantizer,
    /// `[n x stride]`.
    codes: &'a [u8],
    /// `[n]` under ip: `sqrt(U^2 - |x|^2)`; else empty.
    lifts: &'a [f32],
    walked: Option<(&'a Quantizer, &'a [u8])>,
}

impl<'a> CodeSpace<'a> {
    /// Panics unless there is a lift a row under ip.
    pub(crate) fn new(
        quantizer: &'a Quantizer,
        codes: &'a [u8],
        lifts: &'a [f32],
    ) -> CodeSpace<'a> {
        let n = codes.len() / quantizer.stride();
        let lifted = quantizer.metric.is_product();
        assert_eq!(lifts.len(), if lifted { n } else { 0 }, "a lift a row under ip");
        CodeSpace { quantizer, codes, lifts, walked: None }
    }

    /// The same; walks are over `codes` of the same rows, where those are of 4 bits.
    pub(crate) fn walked_over(self, quantizer: &'a Quantizer, codes: &'a [u8]) -> CodeSpace<'a> {
        let walked =
            matches!(quantizer.record, Record::Packed4 { .. }).then_some((quantizer, codes));
        CodeSpace { walked, ..self }
    }
}

/// Squared L2 between one row and others, in the search space.
pub(crate) struct RowDistance<'a> {
    codes: CodeDistance<'a>,
    lifts: &'a [f32],
    lift: f32,
}

impl Space for CodeSpace<'_> {
    type Scratch = PreparedQuery;
    type From<'b>
        = RowDistance<'b>
    where
        Self: 'b;

    fn len(&self) -> u32 {
        (self.codes.len() / self.quantizer.stride()) as u32
    }

    fn distances_from<'b>(&'b self, id: u32, scratch: &'b mut PreparedQuery) -> RowDistance<'b> {
        let stride = self.quantizer.stride();
        scratch.prepare_record(self.quantizer, &self.codes[id as usize * stride..][..stride]);
        RowDistance {
            codes: self.quantizer.distance(self.codes, scratch),
            lifts: self.lifts,
            lift: self.lifts.get(id as usize).copied().unwrap_or(0.0),
        }
    }

    fn estimates_from<'b>(&'b self, id: u32, scratch: &'b mut PreparedQuery) -> RowDistance<'b> {
        let Some((quantizer, codes)) = self.walked else { return self.distances_from(id, scratch) };
        let stride = self.quantizer.stride();
        let record = &self.codes[id as usize * stride..][..stride];
        scratch.prepare_row(quantizer, (self.quantizer, record));
        RowDistance {
            codes: quantizer.distance(codes, scratch),
            lifts: self.lifts,
            lift: self.lifts.get(id as usize).copied().unwrap_or(0.0),
        }
    }
}

impl QueryDistance for RowDistance<'_> {
    #[inline(always)]
    fn prefetch(&self, id: u32) {
        self.codes.prefetch(id);
    }

    #[inline(always)]
    fn distances(&self, ids: &[u32], out: &mut [f32]) {
        self.codes.distances(ids, out);
        if !self.lifts.is_empty() {
            for (distance, id) in out.iter_mut().zip(ids) {
                let difference = self.lift - self.lifts[*id as usize];
                *distance += difference * difference;
            }
        }
    }

    fn error(&self, id: u32) -> f32 {
        self.codes.error(id)
    }
}
