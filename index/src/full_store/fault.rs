//! SIGBUS: a mapped page was touched that its file no longer has, or that the device cannot read.
//!
//! Without a handler the process would end. The handler puts a page of zeros in the place of the
//! lost one, and marks the mapping; who reads from it looks at the mark before it believes what it
//! read. That costs a load from memory for each call, and nothing for each row.

use std::io;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The most mappings of a process that are guarded.
const MOST: usize = 1024;

static SLOTS: [Slot; MOST] = [const { Slot::empty() }; MOST];
static HANDLER: OnceLock<Handler> = OnceLock::new();

/// The addresses of a guarded mapping; none in a free slot.
struct Slot {
    is_taken: AtomicBool,
    /// Counts changes of the addresses: odd during one.
    changes: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    is_lost: AtomicBool,
}

impl Slot {
    const fn empty() -> Slot {
        Slot {
            is_taken: AtomicBool::new(false),
            changes: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            is_lost: AtomicBool::new(false),
        }
    }

    /// Changes the addresses. Only the thread that has taken the slot may call this.
    fn set(&self, addresses: Range<usize>) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.start.store(addresses.start, Ordering::SeqCst);
        self.end.store(addresses.end, Ordering::SeqCst);
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether the mapping holds `address`, which a thread is reading. A slot that changes during
    /// the call may show the start of one mapping and the end of another. It cannot be the slot of
    /// `address`, because a mapping outlives the reads from it.
    fn holds(&self, address: usize) -> bool {
        let before = self.changes.load(Ordering::SeqCst);
        let start = self.start.load(Ordering::SeqCst);
        let end = self.end.load(Ordering::SeqCst);
        let is_whole = before.is_multiple_of(2) && self.changes.load(Ordering::SeqCst) == before;
        is_whole && (start..end).contains(&address)
    }
}

/// What the handler needs to know.
struct Handler {
    page: usize,
    /// What was done about SIGBUS before.
    before: libc::sigaction,
}

/// A mapping whose lost pages are noticed. Dropped before the mapping is.
#[derive(Debug)]
pub(super) struct Guard {
    slot: usize,
}

impl Guard {
    /// Guards the mapping at `addresses`.
    ///
    /// # Errors
    /// Too many mappings; the system does not let signals be handled.
    pub(super) fn new(addresses: Range<usize>) -> io::Result<Guard> {
        install()?;
        let free = SLOTS.iter().position(|slot| !slot.is_taken.swap(true, Ordering::AcqRel));
        let what = "more mappings than can be guarded at a time";
        let slot = free.ok_or_else(|| io::Error::other(what))?;
        SLOTS[slot].is_lost.store(false, Ordering::Relaxed);
        SLOTS[slot].set(addresses);
        Ok(Guard { slot })
    }

    /// Whether a page of the mapping was lost.
    #[inline]
    pub(super) fn is_lost(&self) -> bool {
        SLOTS[self.slot].is_lost.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let slot = &SLOTS[self.slot];
        slot.set(0..0);
        slot.is_taken.store(false, Ordering::Release);
    }
}

/// Installs the handler, once.
fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        let failed = || io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
        // SAFETY: a `sigaction` is plain data, of which all zeros are a value.
        let (mut before, mut ours) = unsafe {
            (std::mem::zeroed::<libc::sigaction>(), std::mem::zeroed::<libc::sigaction>())
        };
        // SAFETY: no new action is given, and `before` may be written to.
        if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut before) } != 0 {
            return Err(failed());
        }
        let page = rustix::param::page_size();
        HANDLER.get_or_init(|| Handler { page, before });
        let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_fault;
        ours.sa_sigaction = handler as usize;
        // On the alternate stack, which every thread of Rust has.
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: `ours` names a function of the form that SA_SIGINFO asks for, which makes only
        // calls that a signal handler may make; what it needs was stored above.
        match unsafe { libc::sigaction(libc::SIGBUS, &ours, std::ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(failed()),
        }
    });
    installed.map_err(io::Error::from_raw_os_error)
}

extern "C" fn on_fault(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let Some(handler) = HANDLER.get() else { return };
    // SAFETY: the kernel gives a handler with SA_SIGINFO what it knows of the signal, and SIGBUS
    // has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    let guarded = SLOTS.iter().find(|slot| slot.holds(address));
    if let Some(slot) = guarded {
        // Before the page is there: no other thread may take its zeros for rows.
        slot.is_lost.store(true, Ordering::SeqCst);
        let page = (address / handler.page * handler.page) as *mut libc::c_void;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the page lies within a mapping of ours, which is only read, and which nobody
        // unmaps while it is guarded. errno is the interrupted thread's: it is put back.
        let is_mapped = unsafe {
            let errno = *libc::__errno_location();
            let fresh = libc::mmap(page, handler.page, libc::PROT_READ, flags, -1, 0);
            *libc::__errno_location() = errno;
            fresh != libc::MAP_FAILED
        };
        if is_mapped {
            return;
        }
    }
    // Not ours: the touch is repeated when this returns, and meets who was asked before.
    // SAFETY: it is the action that the system gave back.
    unsafe { libc::sigaction(libc::SIGBUS, &handler.before, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The addresses between two mappings that take turns in a slot belong to neither.
    #[test]
    fn a_slot_never_mixes_two_mappings() {
        let (slot, is_over) = (Slot::empty(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    slot.set(10..20);
                    slot.set(30..40);
                }
            });
            let mixed = (0..2_000_000).filter(|_| slot.holds(25)).count();
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(mixed, 0);
        });
        slot.set(10..20);
        assert!(slot.holds(10) && slot.holds(19) && !slot.holds(20));
        slot.set(0..0);
        assert!(!slot.holds(0));
    }
}
