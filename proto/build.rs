//! Generates the messages and services from `foveal/v1/*.proto`. protox reads the files, so that
//! no protoc has to be installed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

const FILES: [&str; 5] = [
    "foveal/v1/common.proto",
    "foveal/v1/decode.proto",
    "foveal/v1/search.proto",
    "foveal/v1/collection.proto",
    "foveal/v1/admin.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=foveal");
    let descriptors = protox::compile(FILES, ["."])?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    // Vectors are borrowed from the buffer that received them.
    tonic_prost_build::configure().bytes(".foveal.v1.Raw.values").compile_fds(descriptors)?;
    Ok(())
}
