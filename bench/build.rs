//! Compiles the few lines of C++ that ask faiss how it was compiled.

fn main() {
    println!("cargo:rerun-if-changed=src/faiss_version.cpp");
    #[cfg(feature = "faiss")]
    cc::Build::new().cpp(true).file("src/faiss_version.cpp").compile("foveal_faiss_version");
}
