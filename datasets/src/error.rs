//! What kind of failure an error is: what a program turns into an exit code or a status.

/// The kinds of failure that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A parameter or its combination with others makes no sense.
    Usage,
    /// Bytes that contradict themselves, their header, or what was promised.
    BadData,
    /// A file or directory to be read is not there.
    NoInput,
    /// Something to be written is there already or cannot be made.
    CannotCreate,
    /// The operating system refused a read, a write or memory.
    Io,
    /// The caller asked to stop.
    Interrupted,
}
