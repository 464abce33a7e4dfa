//! The wire, and only the wire: messages, clients and service traits generated from
//! `foveal/v1/*.proto`, which are the reference of the API. No logic.

/// Package `foveal.v1`.
#[allow(missing_docs, clippy::all, reason = "generated; documented in the .proto files")]
pub mod v1 {
    tonic::include_proto!("foveal.v1");
}

/// The encoded `FileDescriptorSet` of the package and what it imports, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
