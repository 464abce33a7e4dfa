//! The request and the answer of a decode.

use foveal_datasets::Row;

use crate::id_set::IdSet;
use crate::params::{DecodeMode, DecodeParams};
use crate::segment::{SearchError, Segment};
use crate::softmax::LogZ;
use crate::stats::{QueryStats, Stop};

/// A token and how likely it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    /// The caller's name for it: the row of the head.
    pub key: u64,
    /// `<h, x> + b`, exactly.
    pub logit: f32,
    /// The log of its probability; see [`Decoded::log_z`]. Minus infinity for one that does not
    /// count.
    pub log_prob: f64,
}

/// The answer to one hidden state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// At most k, most likely first; equal logits smaller key first. Fewer where `top_p` cut them
    /// or fewer are allowed.
    pub tokens: Vec<Token>,
    /// The tokens that the request names by key, in that order.
    pub requested: Vec<Token>,
    /// The log of the sum over all allowed tokens of `exp(logit / temperature)`, which log
    /// probabilities are normalised by. None if it was not requested: they are then normalised over
    /// `tokens`, as FGD does.
    pub log_z: Option<LogZ>,
    /// Whether no other allowed token can be among the tokens.
    pub order_proved: bool,
    /// How candidates were found; never `Auto`, and `Exact` where estimates were too poor.
    pub mode: DecodeMode,
    /// Whether it took more than planned to be as sure as wanted, because estimates are poor for
    /// this hidden state: better estimates of all tokens, or more exact logits.
    pub widened: bool,
    /// From the start of the decode to its end, in nanoseconds.
    pub nanos: u64,
    /// What it cost; `distances` counts estimated logits.
    pub stats: QueryStats,
}

/// A decode of one hidden state.
#[derive(Clone, Copy, Debug)]
pub struct DecodeRequest<'a> {
    /// How.
    pub params: DecodeParams,
    /// The only tokens that count; none where all do.
    pub allowed: Option<&'a IdSet>,
    /// Keys of tokens to report even if they are not among the best.
    pub requested: &'a [u64],
    /// When to give up.
    pub stop: Stop<'a>,
}

impl DecodeRequest<'_> {
    /// The `k` best of all tokens, with the defaults.
    pub fn new(k: u32) -> DecodeRequest<'static> {
        let (allowed, requested, stop) = (None, [].as_slice(), Stop::default());
        DecodeRequest { params: DecodeParams::new(k), allowed, requested, stop }
    }

    /// Whether a token counts.
    pub(super) fn allows(&self, id: u32) -> bool {
        self.allowed.is_none_or(|allowed| allowed.contains(id))
    }
}

impl Segment {
    /// Whether a key names a token, and one that counts.
    ///
    /// # Errors
    /// Damage, or a read refused.
    pub fn counts(&self, allowed: Option<&IdSet>, key: u64) -> Result<bool, SearchError> {
        let is_allowed = |id| allowed.is_none_or(|allowed| allowed.contains(id));
        Ok(self.shared.keys.id_of(key)?.is_some_and(is_allowed))
    }

    /// Whether a hidden state can be decoded.
    ///
    /// # Errors
    /// Another dimension; a number that is not finite; one so long that its logits pass the range
    /// of f32.
    pub fn check_hidden(&self, hidden: Row<'_>) -> Result<(), SearchError> {
        let wanted = self.hidden_dim();
        if hidden.dim() != wanted {
            return Err(SearchError::Dim { found: hidden.dim(), wanted });
        }
        // Where rows end with a bias, a 1 stands for it.
        let mut wide = vec![1.0; self.dim()];
        hidden.widen_into(&mut wide[..wanted]);
        self.check_query(Row::F32(&wide))
    }
}
