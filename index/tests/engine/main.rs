//! What a user of the engine relies on, over its public names alone.

#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod allowed;
mod answers;
mod build;
mod built;
mod connectivity;
mod damage;
mod decode;
mod determinism;
mod frontier;
mod golden;
mod heads;
mod media;
mod payload;
mod refused_decodes;
mod scale;
mod search;
mod segments;
mod ugly;
