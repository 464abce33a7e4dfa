//! Where a vector's life begins: files in, rows out.
//!
//! Depends on nothing else of Foveal; the engine, the server and the benchmarks depend on it.

pub mod error;
pub mod metric;
pub mod rows;

pub use error::ErrorKind;
pub use metric::Metric;
pub use rows::{Element, Row, Rows, RowsError, Values};
