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
const MAX_DEPTH: usize = 64;
/// Between two looks at whether a query must stop, in nanoseconds.
const LOOK_NANOS: u32 = 5_000_000;
/// Most bytes in flight, as long as that allows four units.
const MAX_BYTES: usize = 4 << 20;

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
    /// The number of the call of `read` that is under way, and of the one that each buffer was
    /// last queued for.
    call: u64,
    calls: Vec<u64>,
    /// Whether the kernel keeps the buffers pinned.
    pinned: bool,
}

/// A finished read.
struct Completion {
    buffer: usize,
    call: u64,
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
        let calls = vec![0; depth];
        Ok(Ring { ring, buffers, unit_bytes, free, in_flight: 0, call: 0, calls, pinned })
    }

    /// Reads `units` and hands each, verified, to `visit(position in units, bytes)`, in the order
    /// in which they arrive, unless `stop` comes first. What then is still on its way, or after an
    /// error or a panic of the visitor, keeps its buffers until it arrives, and is not looked at.
    pub(super) fn read(
        &mut self,
        file: &BlockFile,
        units: &[u32],
        stop: &Stop<'_>,
        mut visit: impl FnMut(usize, &[u8]),
    ) -> Result<(), ReadError> {
        let refused = || OpenError::io(file.array().path(), "read by io_uring");
        self.call += 1;
        let (mut next, mut done) = (0, 0);
        loop {
            while next < units.len() && self.queue(file, units, next) {
                next += 1;
            }
            if done == units.len() {
                return Ok(());
            }
            self.wait(stop).map_err(refused())?;
            while let Some(Completion { buffer, call, position, result }) = self.completed() {
                if call == self.call {
                    self.finish(file, buffer, units[position], result)?;
                    done += 1;
                    visit(position, &self.buffers[buffer]);
                }
            }
            // Looked at last: what has arrived is an answer.
            if let Some(why) = stop.now().filter(|_| done < units.len()) {
                return Err(ReadError::Stopped(why));
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
        self.calls[buffer as usize] = self.call;
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
        match waited {
            Ok(_) => Ok(()),
            // Interrupted, late, or short of memory or places for now: completions free both.
            Err(e) => match e.raw_os_error() {
                Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY) => Ok(()),
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
        Some(Completion { buffer, call: self.calls[buffer], position, result: entry.result() })
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
