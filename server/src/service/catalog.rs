//! Which collections are open, and how their full vectors are read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use foveal_index::{Index, Io, Manifest, OpenError, OpenOptions};
use tracing::{info, warn};

use super::ServeError;
use crate::config::Config;
use crate::convert;

/// An open collection.
pub struct Collection {
    /// The name clients use.
    pub name: String,
    /// Its number among the open collections: where a worker keeps its searcher.
    pub slot: usize,
    /// The engine's side of it.
    pub index: Index,
}

/// The open collections by name.
#[derive(Default)]
pub struct Catalog {
    by_name: BTreeMap<String, Arc<Collection>>,
}

impl Catalog {
    /// Opens every collection of `config`, one after the other, within its memory budget. Codes,
    /// graph and keys of all come first; full vectors are then loaded for those collections, in
    /// the order of names, for which the budget suffices; all others share what is left for
    /// blocks that were read. Without a budget full vectors stay on disk and in the page cache.
    ///
    /// # Errors
    /// An index that cannot be opened; a budget that does not hold codes, graphs and keys.
    pub fn open(config: &Config) -> Result<Catalog, ServeError> {
        let mut plans = Vec::new();
        for (name, path) in &config.collections {
            let (manifest, _) = foveal_index::inspect(path)
                .map_err(|source| ServeError::Open { name: name.clone(), source })?;
            let bytes = Predicted::of(&manifest);
            plans.push(Plan { name, path, bytes, io: config.io, cache: None });
        }
        if let Some(budget) = config.memory {
            spend(&mut plans, budget)?;
        }
        let mut catalog = Catalog::default();
        for (slot, plan) in plans.iter().enumerate() {
            let index = plan
                .open()
                .map_err(|source| ServeError::Open { name: plan.name.into(), source })?;
            let name = plan.name.to_string();
            info!(
                collection = name,
                path = %plan.path.display(),
                vectors = index.len(),
                dim = index.dim(),
                io = %index.io(),
                predicted_bytes = plan.resident_bytes(index.io()) + plan.cache.unwrap_or(0),
                resident_bytes = index.resident_bytes(),
                "collection opened"
            );
            if let Some(reason) = index.page_cache_reason() {
                warn!(collection = name, %reason, "full vectors go through the page cache");
            }
            catalog.by_name.insert(name.clone(), Arc::new(Collection { name, slot, index }));
        }
        Ok(catalog)
    }

    /// The collection of that name.
    ///
    /// # Errors
    /// A status that names `field` where there is none.
    pub fn get(&self, field: &str, name: &str) -> Result<&Arc<Collection>, tonic::Status> {
        self.by_name.get(name).ok_or_else(|| convert::no_collection(field, name))
    }

    /// The collections in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Collection>> {
        self.by_name.values()
    }
}

/// Bytes that an index is expected to take in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Predicted {
    /// Codes, graph and keys: always.
    preview: u64,
    /// Full vectors: when they are loaded.
    full_store: u64,
}

impl Predicted {
    /// Files hold what memory will, but for what pads full vectors; payloads stay on disk. See
    /// `index/FORMAT.md`.
    fn of(manifest: &Manifest) -> Predicted {
        let mut predicted = Predicted { preview: 0, full_store: 0 };
        for file in &manifest.files {
            match file.name.as_str() {
                "payload.bin" => {}
                "vectors.bin" => {
                    let row = u64::from(manifest.dim) * manifest.element.size() as u64;
                    predicted.full_store = manifest.n.saturating_mul(row);
                }
                _ => predicted.preview = predicted.preview.saturating_add(file.bytes),
            }
        }
        predicted
    }
}

/// How a collection is to be opened.
struct Plan<'a> {
    name: &'a str,
    path: &'a Path,
    bytes: Predicted,
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
    for plan in plans.iter_mut().filter(|plan| plan.io == Io::Auto) {
        if let Some(rest) = left.checked_sub(plan.bytes.full_store) {
            left = rest;
            plan.io = Io::Memory;
        }
    }
    let on_disk = plans.iter_mut().filter(|plan| plan.io != Io::Memory);
    let mut on_disk: Vec<_> = on_disk.collect();
    let share = left / on_disk.len().max(1) as u64;
    on_disk.iter_mut().for_each(|plan| plan.cache = Some(share));
    Ok(())
}

impl Plan<'_> {
    fn open(&self) -> Result<Index, OpenError> {
        let open = |io| {
            let options = OpenOptions { io, cache: self.cache, ..OpenOptions::default() };
            Index::open_with(self.path, &options)
        };
        if self.io != Io::Auto {
            return open(self.io);
        }
        // Kernels and containers may forbid io_uring; whatever else is wrong, pread meets too.
        open(Io::Uring).or_else(|error| {
            warn!(collection = self.name, %error, "io_uring is not to be had; reading with pread");
            open(Io::Pread)
        })
    }

    fn resident_bytes(&self, io: Io) -> u64 {
        let full_store = if io == Io::Memory { self.bytes.full_store } else { 0 };
        self.bytes.preview.saturating_add(full_store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &'static str, preview: u64, full_store: u64, io: Io) -> Plan<'static> {
        let bytes = Predicted { preview, full_store };
        Plan { name, path: Path::new("/nowhere"), bytes, io, cache: None }
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
    fn a_budget_below_the_previews_names_the_collection() {
        let mut plans = [plan("a", 10, 100, Io::Auto), plan("b", 20, 50, Io::Auto)];
        let error = spend(&mut plans, 29).unwrap_err();
        assert_eq!(error.kind(), foveal_datasets::ErrorKind::Usage);
        let text = error.to_string();
        assert!(text.contains("collection b takes 20") && text.contains("19 are left"), "{text}");

        let mut plans = [plan("a", 10, 100, Io::Memory)];
        assert!(spend(&mut plans, 109).is_err(), "memory was asked for and does not suffice");
        assert!(spend(&mut plans, 110).is_ok());
    }

    #[test]
    fn a_row_of_the_manifest_counts_where_it_will_lie() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base.fbin");
        let values = [1_u32, 2].into_iter().chain([1.0_f32, 2.0].map(f32::to_bits));
        std::fs::write(&base, values.flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
        let base = foveal_datasets::VectorFile::open(&base).unwrap();
        let keys = foveal_index::Keys::From(0);
        let input =
            foveal_index::BuildInput { base: &base, keys, payload: None, learn: None, bias: false };
        let params = foveal_index::BuildParams::new(foveal_datasets::Metric::L2);
        let out = dir.path().join("index");
        let job = foveal_index::Job::default();
        let mut manifest = foveal_index::build(&input, &out, &params, job).unwrap().manifest;

        let entry = manifest.files[0].clone();
        let named = |name: &str, bytes| {
            let mut entry = entry.clone();
            (entry.name, entry.bytes) = (name.into(), bytes);
            entry
        };
        manifest.files = vec![
            named("codes.bin", 5),
            named("keys.bin", 7),
            named("vectors.bin", 100),
            named("vectors.bin.crc", 1),
            named("payload.bin", 1_000),
        ];
        // Two numbers of four bytes, behind a block of header.
        assert_eq!(Predicted::of(&manifest), Predicted { preview: 13, full_store: 8 });
    }

    #[test]
    fn a_forced_io_is_kept() {
        let mut plans = [plan("a", 10, 100, Io::Pread)];
        spend(&mut plans, 1_000).unwrap();
        assert_eq!((plans[0].io, plans[0].cache), (Io::Pread, Some(990)));
    }
}
