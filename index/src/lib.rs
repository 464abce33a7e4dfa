//! The engine: build, open, search, decode. No network, no async, no wire types.
#![allow(dead_code, reason = "the callers arrive with the build and the search")]

pub mod disk;
mod distance;
pub mod exact;
mod graph;
mod kernel;
pub mod neighbor;
pub mod params;
mod preview;
mod quantizer;
pub mod stats;
