//! Many units at once: one io_uring a reader.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, types};

use super::block_file::BlockFile;
use super::layout::Layout;
use crate::disk::{OpenError, RamArray};

/// Most units in flight.
const MAX_DEPTH: usize = 64;
/// Most bytes in flight, as long as that allows four units.
const MAX_BYTES: usize = 4 << 20;

/// Whether this process may use io_uring. Sandboxes and administrators often refuse it.
pub(super) fn is_available() -> bool {
    IoUring::new(1).is_ok()
}

/// A ring and the buffers that the kernel writes into.
///
/// A buffer belongs to the kernel from the moment its read is queued until its completion was
/// seen. `in_flight` counts those; while it is not 0 the buffers are neither reused nor unmapped.
pub(super) struct Ring {
    ring: IoUring,
    /// One unit each, apart from each other: no borrow of one covers another that is in flight.
    buffers: ManuallyDrop<Vec<RamArray<u8>>>,
    unit_bytes: usize,
    /// Buffers that belong to us.
    free: Vec<u32>,
    in_flight: usize,
    /// Whether the kernel keeps the buffers pinned.
    pinned: bool,
}

/// A finished read.
struct Completion {
    buffer: usize,
    position: usize,
    result: i32,
}

impl Ring {
    /// A ring that reads `file`, the one that every later call must get: the ring has it
    /// registered.
    pub(super) fn new(file: &BlockFile, layout: Layout) -> io::Result<Ring> {
        let unit_bytes = layout.unit_bytes();
        let depth = (MAX_BYTES / unit_bytes).clamp(4, MAX_DEPTH);
        let ring = IoUring::new(depth as u32)?;
        ring.submitter().register_files(&[file.file().as_raw_fd()])?;
        let mut buffers = (0..depth)
            .map(|_| RamArray::<u8>::zeroed(unit_bytes))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|refused| io::Error::new(io::ErrorKind::OutOfMemory, refused))?;
        let parts: Vec<_> = buffers
            .iter_mut()
            .map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: unit_bytes })
            .collect();
        // SAFETY: each part is a whole buffer, and the buffers outlive all reads: `drop` ends those
        // first. Refused (locked memory is limited), reads work as well, a little slower.
        let pinned = unsafe { ring.submitter().register_buffers(&parts) }.is_ok();
        let free = (0..depth as u32).collect();
        let buffers = ManuallyDrop::new(buffers);
        Ok(Ring { ring, buffers, unit_bytes, free, in_flight: 0, pinned })
    }

    /// Reads `units` and hands each, verified, to `visit(position in units, bytes)`, in the order
    /// in which they arrive.
    pub(super) fn read(
        &mut self,
        file: &BlockFile,
        units: &[u32],
        mut visit: impl FnMut(usize, &[u8]),
    ) -> Result<(), OpenError> {
        let refused = || OpenError::io(file.array().path(), "read by io_uring");
        // A visitor that panicked may have left reads behind.
        self.drain().map_err(refused())?;
        let mut next = 0;
        let mut outcome = Ok(());
        loop {
            while outcome.is_ok() && next < units.len() && self.queue(file, units, next) {
                next += 1;
            }
            if self.in_flight == 0 {
                return outcome;
            }
            self.wait().map_err(refused())?;
            // After damage the rest is still waited for, but not looked at.
            while let Some(Completion { buffer, position, result }) = self.completed() {
                if outcome.is_ok() {
                    outcome = self.finish(file, buffer, units[position], result);
                }
                if outcome.is_ok() {
                    visit(position, &self.buffers[buffer]);
                }
            }
        }
    }

    /// Queues the read of the unit at a position; false if no buffer is free.
    fn queue(&mut self, file: &BlockFile, units: &[u32], position: usize) -> bool {
        let Some(buffer) = self.free.pop() else {
            return false;
        };
        let to = self.buffers[buffer as usize].as_mut_ptr();
        let (length, offset) = (self.unit_bytes as u32, file.offset(units[position]));
        let fixed = types::Fixed(0);
        let entry = match self.pinned {
            true => opcode::ReadFixed::new(fixed, to, length, buffer as u16).offset(offset).build(),
            false => opcode::Read::new(fixed, to, length).offset(offset).build(),
        };
        let entry = entry.user_data(u64::from(buffer) << 32 | position as u64);
        // SAFETY: `to` points to a buffer of `length` bytes that was free and stays the kernel's,
        // borrowed by nobody, until `completed` returns it.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("the queue has a place for each buffer");
        self.in_flight += 1;
        true
    }

    /// Submits what is queued and returns once a read has completed, or was interrupted.
    fn wait(&mut self) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            Ok(_) => Ok(()),
            // Interrupted, or short of memory or places for now: completions free both.
            Err(e) => match e.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(e),
            },
        }
    }

    /// The next finished read, if any. Its buffer is ours again, and keeps what was read until
    /// the next `queue`.
    fn completed(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        let (buffer, position) = ((entry.user_data() >> 32) as u32, entry.user_data() as u32);
        self.in_flight -= 1;
        self.free.push(buffer);
        let (buffer, position) = (buffer as usize, position as usize);
        Some(Completion { buffer, position, result: entry.result() })
    }

    /// Makes sure that a completed buffer holds the whole unit, as it was written.
    fn finish(
        &mut self,
        file: &BlockFile,
        buffer: usize,
        unit: u32,
        result: i32,
    ) -> Result<(), OpenError> {
        if result == self.unit_bytes as i32 {
            return file.verify_unit(unit, &self.buffers[buffer]);
        }
        // Cut short or interrupted: rare, so it is read again the plain way, which also knows a
        // file that ends too early.
        if result < 0 && ![-libc::EINTR, -libc::EAGAIN].contains(&result) {
            let error = io::Error::from_raw_os_error(-result);
            return Err(OpenError::io(file.array().path(), "read by io_uring")(error));
        }
        file.read_unit(unit, &mut self.buffers[buffer])
    }

    /// Waits until no buffer is the kernel's.
    fn drain(&mut self) -> io::Result<()> {
        while self.in_flight > 0 {
            self.wait()?;
            while self.completed().is_some() {}
        }
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Where the kernel does not give the buffers back, they stay mapped for good: better than
        // a read that lands in somebody else's memory.
        if self.drain().is_ok() {
            // SAFETY: nothing is in flight, and nobody uses the buffers after `drop`.
            unsafe { ManuallyDrop::drop(&mut self.buffers) };
        }
    }
}
