//! An array that is read into memory when it is first needed.

use std::sync::{Mutex, OnceLock, PoisonError};

use super::array_file::OpenArray;
use super::error::OpenError;

/// An open array, and once it was needed what was read of it. The file is opened with the index:
/// whatever takes its place in the directory later is not read.
#[derive(Debug)]
pub(crate) struct LateArray<T> {
    value: OnceLock<T>,
    /// Where the value comes from, until it is read.
    file: Mutex<Option<OpenArray>>,
    bytes: u64,
}

impl<T> From<OpenArray> for LateArray<T> {
    fn from(array: OpenArray) -> LateArray<T> {
        let bytes = array.header().shape.data_bytes;
        LateArray { value: OnceLock::new(), file: Mutex::new(Some(array)), bytes }
    }
}

impl<T> LateArray<T> {
    /// A value that is in memory already, and takes so many bytes.
    pub(crate) fn in_memory(value: T, bytes: u64) -> LateArray<T> {
        LateArray { value: value.into(), file: Mutex::default(), bytes }
    }

    /// The value. The first caller reads it, the others wait.
    ///
    /// # Errors
    /// Those of `read`; the next caller tries again.
    #[inline]
    pub(crate) fn load(
        &self,
        read: impl FnOnce(&OpenArray) -> Result<T, OpenError>,
    ) -> Result<&T, OpenError> {
        match self.value.get() {
            Some(value) => Ok(value),
            None => self.read_once(read),
        }
    }

    #[cold]
    fn read_once(
        &self,
        read: impl FnOnce(&OpenArray) -> Result<T, OpenError>,
    ) -> Result<&T, OpenError> {
        // A thread that panicked left the file where it was.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(array) = &*file {
            let value = read(array)?;
            self.value.get_or_init(|| value);
            *file = None;
        }
        Ok(self.value.get().expect("the file is kept until its value is in memory"))
    }

    /// The value, if it was loaded.
    #[inline(always)]
    pub(crate) fn loaded(&self) -> Option<&T> {
        self.value.get()
    }

    /// The value, if it was loaded.
    pub(crate) fn into_loaded(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Bytes of the value in memory, now or once it is loaded.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the value in memory now.
    pub(crate) fn loaded_bytes(&self) -> u64 {
        if self.value.get().is_some() { self.bytes } else { 0 }
    }
}
