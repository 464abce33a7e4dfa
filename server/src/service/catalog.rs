//! Which collections are open, which cannot be opened, and how their full vectors are read.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foveal_index::{Io, Manifest, OpenError, OpenOptions, Segment, SegmentMemory, free_memory};
use tracing::{error, info, warn};

use super::ServeError;
use crate::config::Config;
use crate::convert;

/// An open collection.
pub struct Collection {
    /// The name clients use.
    pub name: String,
    /// Its number among all collections that were ever open: where a worker keeps its searcher.
    pub slot: usize,
    /// The engine's side of it.
    pub index: Segment,
    /// Its directory, as the configuration has it.
    path: PathBuf,
    /// The files of that directory when it was opened.
    files: Vec<FileState>,
    /// How it was to be read, and how that was planned.
    requested_io: Io,
    io: Io,
    cache: Option<u64>,
    /// Bytes of memory that were planned for it.
    planned: u64,
}

/// What tells whether a file is the one that was opened: device, number, length and last change.
type FileState = (u64, u64, u64, i64, i64);

/// A collection of the configuration.
enum Entry {
    Open(Arc<Collection>),
    /// Why it is not, in words for clients: names of files stay in the log.
    Unavailable(&'static str),
}

/// The collections by name.
#[derive(Default)]
pub struct Catalog {
    by_name: BTreeMap<String, Entry>,
}

impl Catalog {
    /// Opens every collection of `config`, one after the other, within its memory budget. Codes,
    /// graph and keys of all come first; full vectors are then loaded for those collections, in
    /// the order of names, for which the budget suffices; all others share what is left for
    /// blocks that were read. Without a budget full vectors are loaded that fit into the memory
    /// that is free, and stay on disk and in the page cache where they do not.
    ///
    /// A collection that cannot be opened is unavailable, and keeps none of the others from being
    /// served.
    ///
    /// # Errors
    /// A budget that does not hold codes, graphs and keys. If no collection can be opened: why the
    /// first one cannot.
    pub fn open(config: &Config) -> Result<Catalog, ServeError> {
        let (catalog, mut failed) = Catalog::default().reopened(config)?;
        if catalog.iter().next().is_none() && !failed.is_empty() {
            let (name, source) = failed.remove(0);
            return Err(ServeError::Open { name, source });
        }
        Ok(catalog)
    }

    /// The collections of `config`: those that are open and whose files are the same stay so; one
    /// that cannot be opened again stays as it is.
    ///
    /// # Errors
    /// A budget that does not hold codes, graphs and keys. Nothing was changed.
    pub fn reopen(&self, config: &Config) -> Result<Catalog, ServeError> {
        let (catalog, _) = self.reopened(config)?;
        for name in self.by_name.keys().filter(|name| !catalog.by_name.contains_key(*name)) {
            info!(collection = name, "collection closed: the configuration has it no more");
        }
        Ok(catalog)
    }

    fn reopened(&self, config: &Config) -> Result<(Catalog, Vec<(String, OpenError)>), ServeError> {
        let (mut catalog, mut failed) = (Catalog::default(), Vec::new());
        // Bytes of collections that stay open although they cannot be opened again.
        let mut kept = 0_u64;
        let mut plans = Vec::new();
        for (name, path) in &config.collections {
            match Plan::of(name, path, config.io) {
                Ok(plan) => plans.push(plan),
                Err(source) => {
                    let before = self.find(name);
                    kept = kept.saturating_add(before.map_or(0, |before| before.planned));
                    catalog.miss(name, &source, before);
                    failed.push((name.clone(), source));
                }
            }
        }
        match config.memory {
            Some(budget) => spend(&mut plans, budget.saturating_sub(kept))?,
            None => self.plan_for_free_memory(&mut plans),
        }
        for plan in &plans {
            let before = self.find(plan.name);
            if let Some(before) = before.filter(|before| plan.is_of(before)) {
                catalog.insert(Arc::clone(before));
                continue;
            }
            match plan.open() {
                Ok(collection) => catalog.insert(Arc::new(collection)),
                Err(source) => {
                    catalog.miss(plan.name, &source, before);
                    failed.push((plan.name.into(), source));
                }
            }
        }
        Ok((catalog, failed))
    }

    /// Memory that is free does not hold what is open already, which stays where it is.
    fn plan_for_free_memory(&self, plans: &mut [Plan<'_>]) {
        let mut fresh = Vec::new();
        for plan in plans {
            match self.find(plan.name).filter(|before| plan.has_files_of(before)) {
                Some(before) => (plan.io, plan.cache) = (before.io, before.cache),
                None => fresh.push(plan),
            }
        }
        load_what_fits(&mut fresh, free_memory().map(|free| free.bytes));
    }

    fn insert(&mut self, collection: Arc<Collection>) {
        self.by_name.insert(collection.name.clone(), Entry::Open(collection));
    }

    /// A collection cannot be opened: the one before it goes on, if there is one.
    fn miss(&mut self, name: &str, error: &OpenError, before: Option<&Arc<Collection>>) {
        if let Some(before) = before {
            error!(collection = name, %error, "collection not opened again; served as before");
            return self.insert(Arc::clone(before));
        }
        error!(collection = name, %error, "collection not opened; not served");
        self.by_name.insert(name.into(), Entry::Unavailable(reason(error)));
    }

    fn find(&self, name: &str) -> Option<&Arc<Collection>> {
        match self.by_name.get(name)? {
            Entry::Open(collection) => Some(collection),
            Entry::Unavailable(_) => None,
        }
    }

    /// The collection of that name.
    ///
    /// # Errors
    /// A status that names `field` if no collection has the name, or says why it is not served.
    pub fn get(&self, field: &str, name: &str) -> Result<&Arc<Collection>, tonic::Status> {
        match self.by_name.get(name) {
            Some(Entry::Open(collection)) => Ok(collection),
            Some(Entry::Unavailable(why)) => Err(convert::unavailable(name, why)),
            None => Err(convert::no_collection(field, name)),
        }
    }

    /// The open collections in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Collection>> {
        self.by_name.keys().filter_map(|name| self.find(name))
    }

    /// Those that cannot be opened, and why, in the order of their names.
    pub fn unavailable(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.by_name.iter().filter_map(|(name, entry)| match entry {
            Entry::Open(_) => None,
            Entry::Unavailable(why) => Some((name.as_str(), *why)),
        })
    }

    /// The numbers of the open collections.
    pub fn slots(&self) -> BTreeSet<usize> {
        self.iter().map(|collection| collection.slot).collect()
    }
}

/// Why a collection cannot be opened, in words for clients.
fn reason(error: &OpenError) -> &'static str {
    match error {
        OpenError::NotFound { .. } | OpenError::NotAnIndex { .. } => "is not where it should be",
        OpenError::Missing { .. } | OpenError::Damaged { .. } => "is damaged on disk",
        OpenError::Version { .. } => "was written by another version of the format",
        OpenError::Memory(_) => "does not fit into memory",
        _ => "cannot be read from disk",
    }
}

/// How a collection is to be opened.
struct Plan<'a> {
    name: &'a str,
    path: &'a Path,
    bytes: SegmentMemory,
    files: Vec<FileState>,
    /// How it is to be read; `Auto` decides by memory.
    requested_io: Io,
    /// `Auto` reads from disk.
    io: Io,
    /// Bytes for blocks that were read; without a budget the page cache has them.
    cache: Option<u64>,
}

/// Decides within `budget` bytes which full stores are loaded, and what is left for the others.
fn spend(plans: &mut [Plan<'_>], budget: u64) -> Result<(), ServeError> {
    let mut left = budget;
    for plan in plans.iter() {
        let needed = plan.resident_bytes(plan.io);
        let name = plan.name.to_string();
        left = left.checked_sub(needed).ok_or(ServeError::Memory { name, needed, left })?;
    }
    left = load(plans.iter_mut(), left);
    let on_disk = plans.iter_mut().filter(|plan| plan.io != Io::Memory);
    let mut on_disk: Vec<_> = on_disk.collect();
    let share = left / on_disk.len().max(1) as u64;
    on_disk.iter_mut().for_each(|plan| plan.cache = Some(share));
    Ok(())
}

/// Loads the full stores that fit into three quarters of the memory that is free; answers and
/// queries take some as well.
fn load_what_fits(plans: &mut [&mut Plan<'_>], free: Option<u64>) {
    let Some(free) = free else { return };
    let needed: u64 = plans.iter().map(|plan| plan.resident_bytes(plan.io)).sum();
    if needed > free {
        warn!(needed, free, "codes, graphs and keys take more memory than is free");
    }
    let left = (free - free / 4).saturating_sub(needed);
    load(plans.iter_mut().map(|plan| &mut **plan), left);
    for plan in plans.iter().filter(|plan| plan.io == Io::Auto) {
        info!(
            collection = plan.name,
            full_vector_bytes = plan.bytes.full_store,
            free,
            "full vectors stay on disk, where answers take longer: memory that is free does not \
             hold them; --memory SIZE keeps blocks of them, --io memory loads them anyway"
        );
    }
}

/// Loads full stores while they fit into `left` bytes; what is left then.
fn load<'p, 'a: 'p>(plans: impl Iterator<Item = &'p mut Plan<'a>>, mut left: u64) -> u64 {
    for plan in plans.filter(|plan| plan.io == Io::Auto) {
        let more = plan.resident_bytes(Io::Memory).saturating_sub(plan.resident_bytes(Io::Auto));
        if let Some(rest) = left.checked_sub(more) {
            left = rest;
            plan.io = Io::Memory;
        }
    }
    left
}

impl<'a> Plan<'a> {
    fn of(name: &'a str, path: &'a Path, io: Io) -> Result<Plan<'a>, OpenError> {
        let (manifest, _) = foveal_index::inspect(path)?;
        let (bytes, files) = (manifest.memory(), states(path, &manifest));
        Ok(Plan { name, path, bytes, files, requested_io: io, io, cache: None })
    }

    /// Whether `before` is what would be opened.
    fn is_of(&self, before: &Collection) -> bool {
        self.has_files_of(before) && (self.io, self.cache) == (before.io, before.cache)
    }

    /// The same, however much memory it is given.
    fn has_files_of(&self, before: &Collection) -> bool {
        (self.path, &self.files, self.requested_io)
            == (&*before.path, &before.files, before.requested_io)
    }

    fn open(&self) -> Result<Collection, OpenError> {
        // Where io_uring is refused to the process, which kernels and containers may do, this is
        // read calls.
        let io = if self.io == Io::Auto { Io::Uring } else { self.io };
        let options = OpenOptions { io, cache: self.cache, ..OpenOptions::default() };
        let index = Segment::open_with(self.path, &options)?;
        let planned = self.resident_bytes(index.io()).saturating_add(self.cache.unwrap_or(0));
        info!(
            collection = self.name,
            path = %self.path.display(),
            vectors = index.len(),
            dim = index.dim(),
            io = %index.io(),
            predicted_bytes = planned,
            resident_bytes = index.resident_bytes(),
            "collection opened"
        );
        if io == Io::Uring && index.io() == Io::Pread {
            warn!(collection = self.name, "the system refuses io_uring; reading with pread");
        }
        if let Some(reason) = index.page_cache_reason() {
            warn!(collection = self.name, %reason, "full vectors go through the page cache");
        }
        static SLOTS: AtomicUsize = AtomicUsize::new(0);
        Ok(Collection {
            name: self.name.into(),
            slot: SLOTS.fetch_add(1, Ordering::Relaxed),
            index,
            path: self.path.into(),
            files: self.files.clone(),
            requested_io: self.requested_io,
            io: self.io,
            cache: self.cache,
            planned,
        })
    }

    fn resident_bytes(&self, io: Io) -> u64 {
        let full_store = match io {
            Io::Memory => self.bytes.full_store,
            _ => self.bytes.full_store_checksums,
        };
        self.bytes.at_most.saturating_add(full_store)
    }
}

/// The state of each file of an index; of one that cannot be told, nothing.
fn states(path: &Path, manifest: &Manifest) -> Vec<FileState> {
    let state = |name: &str| {
        let known = std::fs::metadata(path.join(name)).ok()?;
        Some((known.dev(), known.ino(), known.len(), known.mtime(), known.mtime_nsec()))
    };
    let names = manifest.files.iter().map(|file| file.name.as_str()).chain(["manifest.json"]);
    names.filter_map(state).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &'static str, preview: u64, full_store: u64, io: Io) -> Plan<'static> {
        let bytes =
            SegmentMemory { at_open: 0, at_most: preview, full_store, ..Default::default() };
        let path = Path::new("/nowhere");
        Plan { name, path, bytes, files: Vec::new(), requested_io: io, io, cache: None }
    }

    #[test]
    fn the_budget_goes_to_previews_first_and_then_to_full_stores_that_fit() {
        for (budget, a, b, cache) in [
            (30, Io::Auto, Io::Auto, [Some(0), Some(0)]),
            (79, Io::Auto, Io::Auto, [Some(24), Some(24)]),
            (80, Io::Auto, Io::Memory, [Some(0), None]),
            (129, Io::Auto, Io::Memory, [Some(49), None]),
            (130, Io::Memory, Io::Auto, [None, Some(0)]),
            (180, Io::Memory, Io::Memory, [None, None]),
        ] {
            // A full store of 100 comes before one of 50.
            let mut plans = [plan("a", 10, 100, Io::Auto), plan("b", 20, 50, Io::Auto)];
            spend(&mut plans, budget).unwrap();
            assert_eq!((plans[0].io, plans[1].io), (a, b), "{budget}");
            assert_eq!(plans.map(|plan| plan.cache), cache, "{budget}");
        }
    }

    #[test]
    fn without_a_budget_full_stores_are_loaded_that_fit_into_free_memory() {
        for (free, a, b) in [
            (None, Io::Auto, Io::Auto),
            (Some(10), Io::Auto, Io::Auto),
            (Some(105), Io::Auto, Io::Auto),
            (Some(106), Io::Auto, Io::Memory),
            (Some(173), Io::Memory, Io::Auto),
            (Some(240), Io::Memory, Io::Memory),
        ] {
            let mut plans = [plan("a", 10, 100, Io::Auto), plan("b", 20, 50, Io::Auto)];
            load_what_fits(&mut plans.each_mut(), free);
            assert_eq!((plans[0].io, plans[1].io), (a, b), "{free:?}");
            // The page cache keeps what was read.
            assert_eq!(plans.map(|plan| plan.cache), [None, None], "{free:?}");
            let mut plans = [plan("a", 10, 100, Io::Pread)];
            load_what_fits(&mut plans.each_mut(), free);
            assert_eq!(plans[0].io, Io::Pread);
        }
    }

    #[test]
    fn a_budget_below_the_previews_names_the_collection() {
        let mut plans = [plan("a", 10, 100, Io::Auto), plan("b", 20, 50, Io::Auto)];
        let error = spend(&mut plans, 29).err().unwrap();
        assert_eq!(error.kind(), foveal_datasets::ErrorKind::Usage);
        let text = error.to_string();
        assert!(text.contains("collection b takes 20") && text.contains("19 are left"), "{text}");

        let mut plans = [plan("a", 10, 100, Io::Memory)];
        assert!(spend(&mut plans, 109).is_err(), "memory was asked for and does not suffice");
        assert!(spend(&mut plans, 110).is_ok());
    }

    #[test]
    fn a_forced_io_is_kept() {
        let mut plans = [plan("a", 10, 100, Io::Pread)];
        spend(&mut plans, 1_000).unwrap();
        assert_eq!((plans[0].io, plans[0].cache), (Io::Pread, Some(990)));
    }
}
