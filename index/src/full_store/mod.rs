//! Full vectors on SSD: a row by its id, verified, in whichever way suits the machine.
//!
//! ```text
//! block 0   header of vectors.bin, then zeros
//! unit 0    row 0, row 1, ... row u-1, zeros         a unit is the least run of whole 4 KiB
//! unit 1    row u, ...                               blocks that holds whole rows: one block
//! ...                                                of rows, or one row over several blocks
//! ```
//!
//! | file | its duty |
//! |---|---|
//! | `layout` | where row id lies |
//! | `writer` | rows in id order, padded |
//! | `seen` | which units a query has reserved |
//! | `loaded` | all rows in memory |
//! | `mapped` | the file in the page cache: verified at first touch |
//! | `fault` | what a touch of a page comes to that the file no longer has |
//! | `block_file` | units by read calls (pread), verified at each read |
//! | `uring` | the same, many at once |
//! | `block_cache` | units that were read, as far as a memory limit allows |
//! | `reader` | the way to the rows of one query at a time |
//!
//! | `io` | where rows are | a row costs | use it when |
//! |---|---|---|---|
//! | `memory` | anonymous memory | a cache miss | all of it must stay |
//! | `mapped` | page cache | a cache miss, at first a read | it fits, and may be evicted |
//! | `uring` | disk | its share of a deep queue | it does not fit |
//! | `pread` | disk | a read call | io_uring is refused |

mod block_cache;
mod block_file;
mod fault;
pub mod layout;
mod loaded;
mod mapped;
mod reader;
mod seen;
mod uring;
mod writer;

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use bytemuck::Pod;
use foveal_datasets::{Element, Row};

use crate::disk::{ArrayKind, Manifest, OpenArray, OpenError};
use crate::stats::Stopped;
use block_cache::BlockCache;
use block_file::BlockFile;
use layout::Layout;
use loaded::LoadedRows;
use mapped::MappedUnits;
pub use reader::RowReader;
pub use writer::FullStoreWriter;

/// How full vectors are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Io {
    /// Mapped if the file fits the memory allowed, else io_uring, else read calls.
    #[default]
    Auto,
    /// Loaded whole.
    Memory,
    /// Through the page cache. A row is verified when it is first touched; a file that is cut or
    /// written to after that is an error. The first such opening of a process installs a handler
    /// of SIGBUS, which hands on what does not concern it.
    Mapped,
    /// By read calls.
    Pread,
    /// By io_uring.
    Uring,
    /// Not at all: the codes hold the rows exactly.
    None,
}

impl Io {
    /// Whether each read costs a system call.
    pub fn is_device(self) -> bool {
        matches!(self, Io::Pread | Io::Uring)
    }

    /// The name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Io::Auto => "auto",
            Io::Memory => "memory",
            Io::Mapped => "mapped",
            Io::Pread => "pread",
            Io::Uring => "uring",
            Io::None => "none",
        }
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Io {
    type Err = String;

    fn from_str(text: &str) -> Result<Io, String> {
        [Io::Auto, Io::Memory, Io::Mapped, Io::Pread, Io::Uring]
            .into_iter()
            .find(|io| io.name() == text)
            .ok_or_else(|| {
                format!("io {text:?} is unknown; wanted auto, memory, mapped, pread or uring")
            })
    }
}

/// How an index is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// How full vectors are read.
    pub io: Io,
    /// The most bytes codes, graph, keys and full vectors together may take in memory or page
    /// cache; `None` sets no limit. Where full vectors do not fit, what is left of it is `cache`.
    /// Reads in flight take up to 1 MiB more for each query in flight.
    pub memory: Option<u64>,
    /// Bytes for blocks that were read, where full vectors do not fit them and are on disk: then
    /// reads pass the page cache, if the file system can do that. `None` leaves it to `memory`,
    /// and without that to the page cache.
    pub cache: Option<u64>,
    /// Whether each read goes to the device, past the page cache: for measurements. Only
    /// `uring` and `pread` can.
    pub cold: bool,
}

/// Why rows were not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Damage, or the operating system refused.
    #[error(transparent)]
    Failed(#[from] OpenError),
    /// The query must end.
    #[error("stopped: {0:?}")]
    Stopped(Stopped),
}

/// The full vectors of an index. Cheap to clone; shared between threads.
#[derive(Clone, Debug)]
pub struct FullStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    layout: Layout,
    n: u32,
    element: Element,
    io: Io,
    medium: Medium,
    /// Of `Medium::Blocks`, where memory is limited.
    cache: Option<BlockCache>,
    /// Why the page cache is not passed where memory is limited.
    refused: Option<OpenError>,
}

/// Where the rows are.
#[derive(Debug)]
enum Medium {
    Memory(LoadedRows),
    Mapped(MappedUnits),
    Blocks(BlockFile),
}

impl FullStore {
    /// Opens the full vectors of the index in `dir`. `memory` reads and verifies all of them now.
    ///
    /// # Errors
    /// Options that contradict each other; damage; memory or a read refused.
    pub fn open(
        dir: &Path,
        manifest: &Manifest,
        options: &OpenOptions,
    ) -> Result<FullStore, OpenError> {
        let array = OpenArray::open(dir, manifest, ArrayKind::Vectors)?;
        let row_bytes = manifest.dim as usize * manifest.element.size();
        let layout = Layout::new(row_bytes);
        let n = manifest.n as u32;
        let shape = array.header().shape;
        if shape.stride as usize != row_bytes || shape.data_bytes != layout.data_bytes(n) {
            let what = format!("{shape:?}; wanted {n} rows of {row_bytes} bytes");
            return Err(OpenError::damaged(array.path(), 0, what));
        }
        let io = choose(options, layout.loaded_bytes(n), array.length())?;
        let left = options.memory.map(|left| left.saturating_sub(array.crc_bytes()));
        let room = options
            .cache
            .or(left)
            .filter(|room| io.is_device() && !options.cold && *room < array.length());
        let mut refused = None;
        let medium = match io {
            Io::Memory => Medium::Memory(LoadedRows::load(&array, layout, n)?),
            Io::Mapped => Medium::Mapped(MappedUnits::new(array, layout)?),
            _ => {
                let mut file = BlockFile::new(array, layout);
                if options.cold {
                    file.pass_page_cache()?;
                } else if room.is_some() {
                    // Where that is refused there is the page cache, which gives way to all else.
                    refused = file.pass_page_cache().err();
                }
                Medium::Blocks(file)
            }
        };
        let cache = room.and_then(|bytes| BlockCache::new(bytes, layout, layout.units(n)));
        let element = manifest.element;
        let shared = Shared { layout, n, element, io, medium, cache, refused };
        Ok(FullStore { shared: Arc::new(shared) })
    }

    /// How rows are read: what `auto` chose, and `pread` where io_uring was refused.
    pub fn io(&self) -> Io {
        self.shared.io
    }

    /// Why reads go through the page cache although memory is limited; none where they do not, or
    /// are meant to.
    pub fn refused(&self) -> Option<&OpenError> {
        self.shared.refused.as_ref()
    }

    /// A reader for one query at a time. With `uring` it has a ring of its own; where the system
    /// grants no further ring, this one reader uses read calls.
    pub fn reader(&self) -> RowReader {
        RowReader::new(Arc::clone(&self.shared))
    }

    /// Whether the rows read so far were those that were published: of interest where rows are
    /// mapped, which are verified once; all others are verified whenever they are read.
    ///
    /// # Errors
    /// The file was cut or written to since it was opened.
    pub fn check_unchanged(&self) -> Result<(), OpenError> {
        match &self.shared.medium {
            Medium::Mapped(mapped) => {
                mapped.look_now();
                mapped.intact()
            }
            _ => Ok(()),
        }
    }

    /// Bytes of full vectors that are in memory or in the page cache now. Linear in the size of
    /// the file; meant for reports.
    ///
    /// # Errors
    /// The operating system does not report it.
    pub fn cached_bytes(&self) -> Result<u64, OpenError> {
        Ok(self.own_bytes()
            + match &self.shared.medium {
                Medium::Memory(_) => 0,
                Medium::Mapped(mapped) => mapped.cached_bytes()?,
                Medium::Blocks(blocks) => mapped::cached_bytes(blocks.array())?,
            })
    }

    /// Bytes of full vectors in memory of this process alone: loaded, or kept of earlier reads.
    pub fn own_bytes(&self) -> u64 {
        match &self.shared.medium {
            Medium::Memory(loaded) => loaded.bytes(),
            _ => self.shared.cache.as_ref().map_or(0, BlockCache::bytes),
        }
    }
}

/// What to do about the options, for rows that take `loaded` bytes in memory and a file of
/// `length` bytes.
fn choose(options: &OpenOptions, loaded: u64, length: u64) -> Result<Io, OpenError> {
    let usage = |what: String| Err(OpenError::Usage { what });
    let fits = |bytes: u64| options.memory.is_none_or(|limit| bytes <= limit);
    let too_large = |bytes: u64| {
        let limit = options.memory.unwrap_or(u64::MAX);
        usage(format!("full vectors take {bytes} bytes of memory; wanted at most {limit}"))
    };
    match options.io {
        Io::None => usage("io none cannot be asked for; wanted auto, or a way to read".into()),
        Io::Memory | Io::Mapped if options.cold => {
            usage(format!("cold reads by io {}; wanted uring or pread", options.io))
        }
        Io::Memory if !fits(loaded) => too_large(loaded),
        Io::Mapped if !fits(length) => too_large(length),
        Io::Auto if fits(length) && !options.cold => Ok(Io::Mapped),
        Io::Auto | Io::Uring if uring::is_available() => Ok(Io::Uring),
        Io::Auto | Io::Uring => Ok(Io::Pread),
        requested => Ok(requested),
    }
}

/// `bytes` as numbers of a type. Panics if they are not aligned or no whole number.
#[inline]
fn row_of(element: Element, bytes: &[u8]) -> Row<'_> {
    fn cast<T: Pod>(bytes: &[u8]) -> &[T] {
        bytemuck::cast_slice(bytes)
    }
    match element {
        Element::F32 => Row::F32(cast(bytes)),
        Element::F16 => Row::F16(cast(bytes)),
        Element::Bf16 => Row::Bf16(cast(bytes)),
        Element::U8 => Row::U8(bytes),
        Element::I8 => Row::I8(cast(bytes)),
    }
}

#[cfg(test)]
mod tests;
