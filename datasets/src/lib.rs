//! Where a vector's life begins: files in, rows out.
//!
//! Depends on nothing else of Foveal; the engine, the server and the benchmarks depend on it.

#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!("rows are read as little-endian bytes and counted in 64 bits");

pub mod catalog;
mod concat;
#[cfg(feature = "download")]
pub mod download;
pub mod error;
pub mod format;
pub mod harmless;
mod hdf5;
mod input_file;
pub mod key_file;
mod layout;
pub mod metric;
mod npy;
pub mod output_file;
mod parquet_file;
pub mod recall;
pub mod regular_file;
pub mod row_source;
pub mod rows;
pub mod seeded;
mod stored;
pub mod synthetic;
mod tensor_file;
pub mod truth_check;
pub mod truth_file;
pub mod vector_file;
pub mod vector_writer;

pub use concat::{Concat, Part};
pub use error::{ErrorKind, FileError};
pub use format::ReadAs;
pub use metric::Metric;
pub use parquet_file::{ParquetColumns, ParquetFile, Spooled, is_reading_parquet};
pub use row_source::{Lengthened, Rounded, RowSource};
pub use rows::{Element, Row, Rows, RowsError, Values};
pub use truth_check::{KeyedRows, TruthCheck, TruthMismatch};
pub use truth_file::Truth;
pub use vector_file::VectorFile;
pub use vector_writer::VectorWriter;
