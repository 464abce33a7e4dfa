//! What the crate `faiss` leaves out: how faiss was compiled, and how many threads it uses.

use std::ffi::{CStr, c_char, c_int};

// SAFETY: faiss_version.cpp defines the first, OpenMP's library the second, with these types; the
// second takes any number.
unsafe extern "C" {
    fn foveal_faiss_version() -> *const c_char;
    safe fn omp_set_num_threads(count: c_int);
}

/// Release and compile options of the linked faiss: `1.12.0 OPTIMIZE AVX512`.
pub fn version() -> String {
    // SAFETY: the text ends with 0 and is never freed.
    let text = unsafe { CStr::from_ptr(foveal_faiss_version()) };
    text.to_string_lossy().trim().to_owned()
}

/// From now on faiss, and BLAS as far as its threads are OpenMP's, use `count` threads.
pub fn set_threads(count: u32) {
    omp_set_num_threads(count.min(c_int::MAX as u32) as c_int);
}
