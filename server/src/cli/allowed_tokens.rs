//! The tokens that `--allow` or `--deny` leave, and their rows.

use std::collections::HashSet;
use std::path::Path;

use foveal_datasets::{Element, KeyedRows, Rows};
use foveal_index::{Index, SearchError, Tokens};

use super::exit_code::Failure;
use super::key_file;

/// The tokens of an index that count.
pub(crate) struct AllowedTokens<'a> {
    index: &'a Index,
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

impl AllowedTokens<'_> {
    /// Reads the keys of either file.
    ///
    /// # Errors
    /// A file that holds no keys, or one that names no token.
    pub(crate) fn read<'a>(
        index: &'a Index,
        allow: Option<&Path>,
        deny: Option<&Path>,
    ) -> anyhow::Result<AllowedTokens<'a>> {
        let (path, rule) = match (allow, deny) {
            (Some(path), _) => (path, Rule::Allow),
            (None, Some(path)) => (path, Rule::Deny),
            (None, None) => {
                return Ok(AllowedTokens { index, keys: HashSet::new(), rule: Rule::All });
            }
        };
        let keys = key_file::read_all(path)?;
        let known = index.count_known(&keys);
        if known < keys.len() {
            let (shown, wanted) = (path.display(), keys.len());
            let message =
                format!("{shown}: {known} of {wanted} keys are in this index; wanted all of them");
            return Err(Failure::bad_data(message).into());
        }
        Ok(AllowedTokens { index, keys: keys.into_iter().collect(), rule })
    }

    /// The same for a decode.
    pub(crate) fn tokens(&self) -> Tokens {
        let keys: Vec<u64> = self.keys.iter().copied().collect();
        match self.rule {
            Rule::All => Tokens::All,
            Rule::Allow => Tokens::Allow(self.index.token_set(&keys)),
            Rule::Deny => Tokens::Deny(self.index.token_set(&keys)),
        }
    }

    /// Whether a token counts.
    pub(crate) fn allows(&self, key: u64) -> bool {
        match self.rule {
            Rule::All => true,
            Rule::Allow => self.keys.contains(&key),
            Rule::Deny => !self.keys.contains(&key),
        }
    }
}

/// A truth of all tokens, or of those that count: it may leave out the others.
impl KeyedRows for AllowedTokens<'_> {
    type Error = SearchError;

    fn count_known(&self, keys: &[u64]) -> usize {
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
