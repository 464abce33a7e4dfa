//! Many units at once: one io_uring a reader.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, types};

use super::ReadError;
use super::block_file::BlockFile;
use super::layout::Layout;
use crate::disk::{OpenError, RamArray};
use crate::stats::Stop;

/// Most units in flight.
const MAX_DEPTH: usize = 32;
/// Between two looks at whether a query must stop, in nanoseconds.
const LOOK_NANOS: u32 = 5_000_000;
/// Most bytes in flight, as long as that allows four units.
const MAX_BYTES: usize = 1 << 20;

/// Whether this process may use io_uring, and wait in it for no longer than a query may take
/// (Linux 5.11). Sandboxes and administrators often refuse it.
pub(super) fn is_available() -> bool {
    IoUring::new(1).is_ok_and(|ring| ring.params().is_feature_ext_arg())
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
    /// The number of the batch that is under way, and of the one that each buffer was last queued
    /// for.
    batch: u64,
    batches: Vec<u64>,
    /// Units of this batch that were queued, and those that were handed out.
    queued: usize,
    done: usize,
    /// Whether the kernel keeps the buffers pinned.
    pinned: bool,
}

/// A finished read.
struct Completion {
    buffer: usize,
    batch: u64,
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
        Ok(Ring {
            ring,
            buffers,
            unit_bytes,
            free,
            in_flight: 0,
            batch: 0,
            batches: vec![0; depth],
            queued: 0,
            done: 0,
            pinned,
        })
    }

    /// Begins a new batch of units. What is still in flight of the one before, after a stop, an
    /// error or a panic of the visitor, keeps its buffers until it arrives, and is not looked at.
    pub(super) fn begin(&mut self) {
        self.batch += 1;
        (self.queued, self.done) = (0, 0);
    }

    /// Has the device read `units`, the first ones of the batch, as far as there are buffers.
    ///
    /// # Errors
    /// It takes no reads.
    pub(super) fn queue_ahead(&mut self, file: &BlockFile, units: &[u32]) -> Result<(), OpenError> {
        self.queue_all(file, units);
        let refused = OpenError::io(file.array().path(), "read by io_uring");
        submitted(self.ring.submit()).map_err(refused)
    }

    /// Goes on with the batch: queues `units`, the same first ones at every call, as far as there
    /// are buffers, and hands those that have arrived, verified, to `visit(position in units,
    /// bytes)`; whether that were the last ones. With `wait` it waits for one at least.
    ///
    /// # Errors
    /// Damage, a read refused, and `stop`, which a wait looks at every few milliseconds. The batch
    /// is over then.
    pub(super) fn advance(
        &mut self,
        (file, units): (&BlockFile, &[u32]),
        (stop, wait): (&Stop<'_>, bool),
        mut visit: impl FnMut(usize, &[u8]),
    ) -> Result<bool, ReadError> {
        let refused = || OpenError::io(file.array().path(), "read by io_uring");
        let before = self.done;
        loop {
            self.queue_all(file, units);
            if wait && self.done == before && self.done < units.len() {
                self.wait(stop).map_err(refused())?;
            } else if !self.ring.submission().is_empty() {
                submitted(self.ring.submit()).map_err(refused())?;
            }
            while let Some(Completion { buffer, batch, position, result }) = self.completed() {
                if batch == self.batch {
                    self.finish(file, buffer, units[position], result)?;
                    self.done += 1;
                    visit(position, &self.buffers[buffer]);
                }
            }
            if self.done == units.len() {
                return Ok(true);
            }
            // Looked at last: what has arrived is an answer.
            if let Some(why) = stop.now() {
                return Err(ReadError::Stopped(why));
            }
            let room = self.queued < units.len() && !self.free.is_empty();
            let waiting = wait && self.done == before;
            if !room && !waiting {
                return Ok(false);
            }
        }
    }

    /// Queues what is not queued yet of `units`, as far as there are buffers.
    fn queue_all(&mut self, file: &BlockFile, units: &[u32]) {
        while self.queued < units.len() && self.queue(file, units, self.queued) {
            self.queued += 1;
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
        self.batches[buffer as usize] = self.batch;
        self.in_flight += 1;
        true
    }

    /// Submits what is queued and returns once a read has completed, was interrupted, or `stop`
    /// should be looked at.
    fn wait(&mut self, stop: &Stop<'_>) -> io::Result<()> {
        let waited = if stop.is_never() {
            self.ring.submit_and_wait(1)
        } else {
            let moment = types::Timespec::new().nsec(LOOK_NANOS);
            self.ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&moment))
        };
        submitted(waited)
    }

    /// The next finished read, if any. Its buffer is ours again, and keeps what was read until
    /// the next `queue`.
    fn completed(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        let (buffer, position) = ((entry.user_data() >> 32) as u32, entry.user_data() as u32);
        self.in_flight -= 1;
        self.free.push(buffer);
        let (buffer, position) = (buffer as usize, position as usize);
        Some(Completion { buffer, batch: self.batches[buffer], position, result: entry.result() })
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
            self.wait(&Stop::default())?;
            while self.completed().is_some() {}
        }
        Ok(())
    }
}

/// Interrupted, late, or short of memory or places for now is no error: completions free both.
fn submitted(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(e) => match e.raw_os_error() {
            Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY) => Ok(()),
            _ => Err(e),
        },
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
