//! Full vectors on disk.
