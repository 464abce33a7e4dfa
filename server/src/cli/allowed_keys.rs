//! The rows that `--allow` or `--deny` leave.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::Args;
use foveal_datasets::key_file::read_keys;
use foveal_datasets::{Element, KeyedRows, Rows, Truth};
use foveal_index::{IdSet, SearchError, Segment};

use super::exit_code::Failure;

/// Which rows count.
#[derive(Args)]
pub(crate) struct AllowArgs {
    /// Keys of the only rows that count: a one-dimensional .npy of integers.
    #[arg(long, value_name = "FILE.npy", conflicts_with = "deny")]
    allow: Option<PathBuf>,
    /// Keys of rows that do not count.
    #[arg(long, value_name = "FILE.npy")]
    deny: Option<PathBuf>,
}

/// The keys of such a file.
pub(crate) struct ListedKeys {
    pub(crate) path: PathBuf,
    pub(crate) keys: Vec<u64>,
    /// Whether they are the only ones that count, or those that do not.
    pub(crate) is_allowed: bool,
}

impl AllowArgs {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// It holds no keys.
    pub(crate) fn read(&self) -> anyhow::Result<Option<ListedKeys>> {
        let (path, is_allowed) = match (&self.allow, &self.deny) {
            (Some(path), _) => (path, true),
            (None, Some(path)) => (path, false),
            (None, None) => return Ok(None),
        };
        Ok(Some(ListedKeys { path: path.clone(), keys: read_keys(path)?, is_allowed }))
    }
}

/// The rows of an index that count.
pub(crate) struct AllowedKeys<'a> {
    index: &'a Segment,
    keys: HashSet<u64>,
    rule: Rule,
}

/// What the keys are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    All,
    Allow,
    Deny,
}

impl AllowedKeys<'_> {
    /// Takes the keys of a file, which are allowed, or else denied; all rows without one.
    ///
    /// # Errors
    /// A key that names no row.
    pub(crate) fn of<'a>(
        index: &'a Segment,
        listed: Option<&ListedKeys>,
    ) -> anyhow::Result<AllowedKeys<'a>> {
        let Some(ListedKeys { path, keys, is_allowed }) = listed else {
            return Ok(AllowedKeys { index, keys: HashSet::new(), rule: Rule::All });
        };
        let rule = if *is_allowed { Rule::Allow } else { Rule::Deny };
        let known = index.count_known(keys)?;
        if known < keys.len() {
            let (shown, wanted) = (path.display(), keys.len());
            let message =
                format!("{shown}: {known} of {wanted} keys are in this index; wanted all of them");
            return Err(Failure::bad_data(message).into());
        }
        Ok(AllowedKeys { index, keys: keys.iter().copied().collect(), rule })
    }

    /// The rows that count; none where all do.
    ///
    /// # Errors
    /// Keys cannot be looked up.
    pub(crate) fn id_set(&self) -> Result<Option<IdSet>, SearchError> {
        let keys: Vec<u64> = self.keys.iter().copied().collect();
        Ok(match self.rule {
            Rule::All => None,
            Rule::Allow => Some(self.index.id_set(&keys)?),
            Rule::Deny => Some(self.index.id_set(&keys)?.complement()),
        })
    }

    /// The first of the `k` best keys of a truth that does not count.
    pub(crate) fn first_excluded(&self, truth: &Truth, k: u32) -> Option<u64> {
        let keys = (0..truth.queries()).flat_map(|query| &truth.keys(query)[..k as usize]);
        keys.filter_map(|key| u64::try_from(*key).ok()).find(|key| !self.allows(*key))
    }

    /// Whether a row counts.
    pub(crate) fn allows(&self, key: u64) -> bool {
        match self.rule {
            Rule::All => true,
            Rule::Allow => self.keys.contains(&key),
            Rule::Deny => !self.keys.contains(&key),
        }
    }
}

/// A truth of all rows, or of those that count: it may leave out the others.
impl KeyedRows for AllowedKeys<'_> {
    type Error = SearchError;

    fn count_known(&self, keys: &[u64]) -> Result<usize, SearchError> {
        self.index.count_known(keys)
    }

    fn rows(&self, keys: &[u64]) -> Result<Rows, SearchError> {
        self.index.rows(keys)
    }

    fn some_keys(&self, count: usize) -> Vec<u64> {
        let mut keys = self.index.some_keys(count);
        keys.retain(|key| self.allows(*key));
        keys
    }

    fn element(&self) -> Element {
        self.index.element()
    }
}
