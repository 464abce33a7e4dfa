//! Where a vector's life begins: files in, rows out.
//!
//! Depends on nothing else of Foveal; the engine, the server and the benchmarks depend on it.

#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!("rows are read as little-endian bytes and counted in 64 bits");

pub mod catalog;
#[cfg(feature = "download")]
pub mod download;
pub mod error;
mod format;
mod hdf5;
mod input_file;
pub mod metric;
mod npy;
mod output_file;
pub mod recall;
pub mod rows;
pub mod synthetic;
mod tensor_file;
pub mod truth_check;
pub mod truth_file;
pub mod vector_file;
pub mod vector_writer;

pub use error::{ErrorKind, FileError};
pub use format::vector_extensions;
pub use metric::Metric;
pub use rows::{Element, Row, Rows, RowsError, Values};
pub use truth_check::{KeyedRows, TruthCheck, TruthMismatch};
pub use truth_file::Truth;
pub use vector_file::VectorFile;
pub use vector_writer::VectorWriter;
