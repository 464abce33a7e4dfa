//! The engine: build, open, search, decode. No network, no async, no wire types.

pub mod disk;
pub mod full_store;
pub mod key_table;
pub mod neighbor;
pub mod params;
pub mod payload;
pub mod stats;
