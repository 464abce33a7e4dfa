//! Which ids count? A set of rows of one index.

/// A set of ids below `n`: in a list where it holds few of them, else a bit an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdSet {
    n: u32,
    count: u32,
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// Ascending.
    Sparse(Vec<u32>),
    /// Id `i` is bit `i mod 64` of word `i / 64`; bits from `n` on are 0.
    Dense(Vec<u64>),
}

/// Ids are in a list where there is less than one in so many: bits are looked up faster, and a
/// million of them take 125 KB.
const SPARSE_PART: u32 = 1024;

impl IdSet {
    /// The set of some ids below `n`, in any order, however often each is named. `O(n / 64)`, and
    /// the ids.
    ///
    /// # Panics
    /// If an id is not below `n`.
    pub fn new(n: u32, ids: impl IntoIterator<Item = u32>) -> IdSet {
        let mut words = vec![0u64; n.div_ceil(64) as usize];
        for id in ids {
            assert!(id < n, "id {id} of {n} rows");
            words[id as usize / 64] |= 1 << (id % 64);
        }
        IdSet::of_words(n, words)
    }

    fn of_words(n: u32, words: Vec<u64>) -> IdSet {
        let count = words.iter().map(|word| word.count_ones()).sum();
        let dense = IdSet { n, count, form: Form::Dense(words) };
        match count < n / SPARSE_PART {
            true => IdSet { form: Form::Sparse(dense.iter().collect()), ..dense },
            false => dense,
        }
    }

    /// How many ids there could be.
    pub fn n(&self) -> u32 {
        self.n
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether an id is among them. `O(log n)` where there are few.
    #[inline]
    pub fn contains(&self, id: u32) -> bool {
        match &self.form {
            Form::Sparse(ids) => ids.binary_search(&id).is_ok(),
            Form::Dense(words) => words[id as usize / 64] >> (id % 64) & 1 == 1,
        }
    }

    /// The ids, ascending.
    pub fn iter(&self) -> Box<dyn Iterator<Item = u32> + '_> {
        match &self.form {
            Form::Sparse(ids) => Box::new(ids.iter().copied()),
            Form::Dense(words) => Box::new((0..).zip(words).flat_map(|(at, word)| {
                let mut left = *word;
                std::iter::from_fn(move || {
                    let bit = left.trailing_zeros();
                    left &= left.wrapping_sub(1);
                    (bit < 64).then_some(at * 64 + bit)
                })
            })),
        }
    }

    /// All other ids below `n`.
    pub fn complement(&self) -> IdSet {
        let mut words = self.words();
        words.iter_mut().for_each(|word| *word = !*word);
        if let Some(last) = words.last_mut().filter(|_| !self.n.is_multiple_of(64)) {
            *last &= (1 << (self.n % 64)) - 1;
        }
        IdSet::of_words(self.n, words)
    }

    /// The ids of both sets.
    ///
    /// # Panics
    /// If the sets are of different `n`.
    pub fn and(&self, other: &IdSet) -> IdSet {
        self.with(other, |a, b| a & b)
    }

    /// The ids of either set.
    ///
    /// # Panics
    /// As [`IdSet::and`].
    pub fn or(&self, other: &IdSet) -> IdSet {
        self.with(other, |a, b| a | b)
    }

    fn with(&self, other: &IdSet, join: impl Fn(u64, u64) -> u64) -> IdSet {
        assert_eq!(self.n, other.n, "sets of rows of one index");
        let words = self.words().into_iter().zip(other.words()).map(|(a, b)| join(a, b));
        IdSet::of_words(self.n, words.collect())
    }

    fn words(&self) -> Vec<u64> {
        match &self.form {
            Form::Dense(words) => words.clone(),
            Form::Sparse(ids) => {
                let mut words = vec![0u64; self.n.div_ceil(64) as usize];
                ids.iter().for_each(|id| words[*id as usize / 64] |= 1 << (id % 64));
                words
            }
        }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> u64 {
        match &self.form {
            Form::Sparse(ids) => 4 * ids.capacity() as u64,
            Form::Dense(words) => 8 * words.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use foveal_datasets::seeded::Seeded;

    use super::*;

    /// What a plain set of ids gives.
    fn check(set: &IdSet, wanted: &BTreeSet<u32>, n: u32) {
        assert_eq!(
            (set.n(), set.len() as usize, set.is_empty()),
            (n, wanted.len(), wanted.is_empty())
        );
        assert!(set.iter().eq(wanted.iter().copied()));
        assert!((0..n).all(|id| set.contains(id) == wanted.contains(&id)));
    }

    #[test]
    fn sets_are_those_of_the_plain_definition() {
        let mut random = Seeded::new(1);
        for n in [1u32, 63, 64, 65, 1000, 4099] {
            for share in [1, 2, 10, 64, 3000] {
                let mut some =
                    || -> BTreeSet<u32> { (0..n).filter(|_| random.below(share) == 0).collect() };
                let (a, b) = (some(), some());
                let set = |ids: &BTreeSet<u32>| IdSet::new(n, ids.iter().rev().copied());
                check(&set(&a), &a, n);
                check(&set(&a).and(&set(&b)), &(&a & &b), n);
                check(&set(&a).or(&set(&b)), &(&a | &b), n);
                let all: BTreeSet<u32> = (0..n).collect();
                check(&set(&a).complement(), &(&all - &a), n);
            }
        }
        let few = IdSet::new(100_000, [7, 7, 99_999]);
        assert!(few.len() == 2 && few.bytes() < 64, "{} bytes", few.bytes());
        assert_eq!(few, few.complement().complement());
        check(&IdSet::new(10, []), &BTreeSet::new(), 10);
    }

    #[test]
    #[should_panic(expected = "id 5 of 5 rows")]
    fn ids_are_below_n() {
        IdSet::new(5, [5]);
    }
}
