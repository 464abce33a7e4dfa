//! Neighbor lists in a file, brought into memory for walks.

use std::path::Path;

use super::adjacency::{Adjacency, NO_NEIGHBOR};
use crate::disk::array_header::HEADER;
use crate::disk::{ArrayKind, LateArray, Manifest, OpenArray, OpenError};

/// A graph that is read when it is first walked: a decode that scans does without.
pub(crate) struct StoredGraph(LateArray<Adjacency>);

impl From<Adjacency> for StoredGraph {
    fn from(graph: Adjacency) -> StoredGraph {
        let bytes = size_of_val(graph.lists()) as u64;
        StoredGraph(LateArray::in_memory(graph, bytes))
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
        Ok(StoredGraph(file.into()))
    }

    /// Reads and verifies the lists unless they are in memory.
    ///
    /// # Errors
    /// The first damage found; memory or a read refused.
    pub(crate) fn load(&self) -> Result<&Adjacency, OpenError> {
        self.0.load(read)
    }

    /// The lists. Panics unless they were loaded.
    #[inline(always)]
    pub(crate) fn lists(&self) -> &Adjacency {
        self.0.loaded().expect("a graph is loaded before it is walked")
    }

    /// The lists, to be changed. Panics unless they were loaded.
    pub(crate) fn into_lists(self) -> Adjacency {
        self.0.into_loaded().expect("a graph that was grown")
    }

    /// Bytes of the lists in memory, now or once they are loaded.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// Bytes of the lists in memory now.
    pub(crate) fn loaded_bytes(&self) -> u64 {
        self.0.loaded_bytes()
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
