//! What a worker does with its turn.

use std::cell::OnceCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use foveal_index::{Decoder, SearchError, Searcher, Segment};

use super::in_flight::{ErasedTask, SingleQuery};
use super::{PoolError, Queue};

/// The most searches for one query that a worker continues with before it drops those it had.
const MOST_TOGETHER: usize = 256;

/// The searchers and decoders of one worker, one of each a collection, made when first needed and
/// then kept.
#[derive(Default)]
pub struct Searchers {
    by_slot: BTreeMap<usize, Searcher>,
    decoders: BTreeMap<usize, Decoder>,
}

impl Searchers {
    /// The searcher of the collection number `slot`, which is over `index`.
    pub fn of(&mut self, slot: usize, index: &Segment) -> &mut Searcher {
        self.by_slot.entry(slot).or_insert_with(|| index.searcher())
    }

    /// The decoder of the collection number `slot`, which is over `index`.
    ///
    /// # Errors
    /// The index is no head.
    pub fn decoder_of(
        &mut self,
        slot: usize,
        index: &Segment,
    ) -> Result<&mut Decoder, SearchError> {
        match self.decoders.entry(slot) {
            Entry::Occupied(decoder) => Ok(decoder.into_mut()),
            Entry::Vacant(empty) => Ok(empty.insert(index.decoder()?)),
        }
    }

    /// Whether there are some of other collections than these.
    pub(super) fn has_others(&self, kept: &BTreeSet<usize>) -> bool {
        self.by_slot.keys().chain(self.decoders.keys()).any(|slot| !kept.contains(slot))
    }

    /// Drops those of other collections than these, and their memory.
    pub(super) fn keep(&mut self, kept: &BTreeSet<usize>) {
        self.by_slot.retain(|slot, _| kept.contains(slot));
        self.decoders.retain(|slot, _| kept.contains(slot));
    }
}

/// Takes turns until the pool closes.
pub(super) fn work(queue: &Queue) {
    let mut searchers = Searchers::default();
    while let Some((task, part)) = queue.next(&mut searchers) {
        task.begin();
        let together: Vec<OnceCell<Arc<dyn ErasedTask>>> = match task.single() {
            Some(single) if single.in_flight > 1 => vec![OnceCell::new(); MOST_TOGETHER],
            _ => Vec::new(),
        };
        let run = || match task.single() {
            Some(single) => run_singles(queue, (&*task, single), &together, &mut searchers),
            None => task.run_part(part, &mut searchers),
        };
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            // What the panic left behind is not to be searched with again.
            searchers = Searchers::default();
            task.fail(PoolError::Panicked);
            let others = together.iter().filter_map(OnceCell::get);
            others.for_each(|task| task.fail(PoolError::Panicked));
        }
    }
}

/// Answers a search for one query, and those of the same collection that come up meanwhile, as many
/// as `together` holds. Each has its result as soon as it is there.
fn run_singles(
    queue: &Queue,
    (first, single): (&dyn ErasedTask, SingleQuery<'_>),
    together: &[OnceCell<Arc<dyn ErasedTask>>],
    searchers: &mut Searchers,
) {
    let SingleQuery { slot, index, query, in_flight } = single;
    let mut free = together.iter();
    let others = iter::from_fn(|| {
        if free.as_slice().is_empty() {
            return None;
        }
        let task = queue.next_single(slot)?;
        task.begin();
        let task = free.next()?.get_or_init(|| task);
        task.single().map(|single| single.query)
    });
    let task = |i: usize| match i.checked_sub(1) {
        Some(i) => together[i].get().map(|task| &**task),
        None => Some(first),
    };
    let mut queries = iter::once(query).chain(others);
    let answered =
        searchers.of(slot, index).search_batch(&mut queries, in_flight, &mut |i, answer| {
            if let Some(task) = task(i) {
                task.finish(answer);
            }
            Ok(())
        });
    answered.expect("what is wrong with a query is told of it alone");
}
