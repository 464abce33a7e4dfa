//! Neighbor lists in a file, brought into memory for walks.

use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::adjacency::{Adjacency, NO_NEIGHBOR};
use crate::disk::array_header::HEADER;
use crate::disk::{ArrayKind, Manifest, OpenArray, OpenError};

/// A graph that is in memory once somebody wanted to walk it, and no earlier: a decode that scans
/// has no use for it.
pub(crate) struct StoredGraph {
    lists: OnceLock<Adjacency>,
    /// Where the lists are until then.
    file: Mutex<Option<OpenArray>>,
    bytes: u64,
}

impl From<Adjacency> for StoredGraph {
    fn from(graph: Adjacency) -> StoredGraph {
        let bytes = size_of_val(graph.lists()) as u64;
        StoredGraph { lists: graph.into(), file: Mutex::default(), bytes }
    }
}

impl StoredGraph {
    /// Opens the graph of the index in `dir`, and verifies that it has `nodes` lists. The lists are
    /// verified when they are read.
    ///
    /// # Errors
    /// Length, header, checksums or first block contradict each other or the manifest.
    pub(crate) fn open(
        dir: &Path,
        manifest: &Manifest,
        nodes: u64,
    ) -> Result<StoredGraph, OpenError> {
        let file = OpenArray::open(dir, manifest, ArrayKind::Graph)?;
        file.check_shape(nodes, manifest.max_degree as usize * size_of::<u32>())?;
        let bytes = file.header().shape.data_bytes;
        Ok(StoredGraph { lists: OnceLock::new(), file: Mutex::new(Some(file)), bytes })
    }

    /// Sees to it that the lists are in memory, and verifies them on the way; at once where they
    /// are.
    ///
    /// # Errors
    /// The first damage found; memory or a read refused.
    pub(crate) fn load(&self) -> Result<&Adjacency, OpenError> {
        if let Some(lists) = self.lists.get() {
            return Ok(lists);
        }
        // One thread reads, the others wait for it; one that panicked left the file where it was.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(array) = &*file {
            let lists = read(array)?;
            self.lists.get_or_init(|| lists);
            *file = None;
        }
        Ok(self.lists())
    }

    /// The lists. Panics unless they were loaded.
    #[inline(always)]
    pub(crate) fn lists(&self) -> &Adjacency {
        self.lists.get().expect("a graph is loaded before it is walked")
    }

    /// The lists, to be changed. Panics unless they were loaded.
    pub(crate) fn into_lists(self) -> Adjacency {
        self.lists.into_inner().expect("a graph that was grown")
    }

    /// Bytes of the lists in memory, now or once they are loaded.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the lists in memory now.
    pub(crate) fn loaded_bytes(&self) -> u64 {
        if self.lists.get().is_some() { self.bytes } else { 0 }
    }
}

/// Reads all lists; each neighbor must be a row.
fn read(array: &OpenArray) -> Result<Adjacency, OpenError> {
    let shape = array.header().shape;
    let lists = array.read_all::<u32>()?;
    let stranger = |id: &u32| u64::from(*id) >= shape.rows && *id != NO_NEIGHBOR;
    if let Some(at) = lists.iter().position(stranger) {
        let what = format!("neighbor id {}; wanted one below {}", lists[at], shape.rows);
        return Err(OpenError::damaged(array.path(), (HEADER + at * 4) as u64, what));
    }
    Ok(Adjacency::from_lists(lists, shape.stride as usize / size_of::<u32>()))
}
