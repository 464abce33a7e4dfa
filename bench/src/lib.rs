//! Claims with numbers: what `foveal-bench` measures, and the lines it writes.
//!
//! Every verb of the program reads a data set ([`data`]) and writes lines ([`mod@line`]);
//! `report` turns lines, ours and those of other systems, into one page. `records/` keeps lines, by
//! date and machine; the figures in README come from there.

pub mod baselines;
pub mod data;
pub mod line;
pub mod load;
pub mod machine;
#[cfg(feature = "faiss")]
pub mod native;
pub mod progress;
