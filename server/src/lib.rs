//! The gRPC service of Foveal: the wire outside, the engine inside.
//!
//! | file | question it answers |
//! |---|---|
//! | `config` | the configuration of a server, and the limits within which it works |
//! | `service` | what each call does, from start to drain |
//! | `convert` | how messages become queries and answers become messages |
//! | `search_pool` | where async ends and threads that search begin |
//!
//! No engine type is `async`, and no call computes on an async thread.

pub mod config;
pub mod convert;
pub mod search_pool;
pub mod service;
// Beside the verbs that share it.
#[path = "cli/size.rs"]
mod size;
