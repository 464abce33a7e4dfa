//! One query's way to the rows, one query at a time.

use std::mem::take;
use std::ops::Range;
use std::sync::Arc;

use foveal_datasets::Row;

use super::layout::Layout;
use super::seen::SeenUnits;
use super::uring::Ring;
use super::{Io, Medium, ReadError, Shared, row_of};
use crate::disk::{OpenError, RamArray};
use crate::stats::{QueryStats, Stop};

/// Bytes of a cache line.
const LINE: usize = 64;

/// Reads rows by id. Owns its buffers: once warm, a query allocates nothing, but for blocks kept
/// under a memory limit. A visitor must not read from the same store: it may hold a lock there.
pub struct RowReader {
    shared: Arc<Shared>,
    seen: SeenUnits,
    plan: Plan,
    /// `uring`: the ring. None for all others, and where this reader was refused one.
    ring: Option<Ring>,
    /// `pread`: one unit; made at the first read.
    buffer: Option<RamArray<u8>>,
}

/// The rows of one call, by unit: so that each unit is read once and in the order of the disk.
#[derive(Default)]
struct Plan {
    ids: Vec<u32>,
    /// Unit in the upper half, position in the call in the lower; sorted.
    rows: Vec<u64>,
    /// The distinct units, ascending.
    units: Vec<u32>,
    /// Where the rows of each unit start, and where those of the last one end.
    starts: Vec<u32>,
    /// The units that are to be read, and the position of each in `units`, or `NOWHERE`.
    missing: Vec<u32>,
    positions: Vec<u32>,
    /// So many of `missing`, the first ones, are read ahead.
    ahead: usize,
}

/// The position of a unit that was read ahead for nothing.
const NOWHERE: u32 = u32::MAX;

impl Plan {
    fn make(&mut self, ids: &[u32], layout: Layout) {
        self.ids.clear();
        self.rows.clear();
        self.units.clear();
        self.starts.clear();
        self.ids.extend(ids);
        let rows = ids.iter().map(|id| layout.unit_of(*id)).enumerate();
        self.rows.extend(rows.map(|(position, unit)| u64::from(unit) << 32 | position as u64));
        self.rows.sort_unstable();
        for (at, row) in self.rows.iter().enumerate() {
            let unit = (row >> 32) as u32;
            if self.units.last() != Some(&unit) {
                self.units.push(unit);
                self.starts.push(at as u32);
            }
        }
        self.starts.push(self.rows.len() as u32);
    }

    /// Positions in the call of the rows in the unit at `at`, and their ids.
    fn rows_in(&self, at: usize) -> impl Iterator<Item = (usize, u32)> + '_ {
        let rows: Range<usize> = self.starts[at] as usize..self.starts[at + 1] as usize;
        self.rows[rows].iter().map(|&row| (row as u32 as usize, self.ids[row as u32 as usize]))
    }
}

impl RowReader {
    pub(super) fn new(shared: Arc<Shared>) -> RowReader {
        let ring = match &shared.medium {
            Medium::Blocks(file) if shared.io == Io::Uring => Ring::new(file, shared.layout).ok(),
            _ => None,
        };
        RowReader { shared, seen: SeenUnits::new(), plan: Plan::default(), ring, buffer: None }
    }

    /// As where the system grants no further ring.
    #[cfg(test)]
    pub(super) fn without_ring(self) -> RowReader {
        RowReader { ring: None, ..self }
    }

    /// Starts counting the reads of a new query.
    pub fn begin_query(&mut self) {
        self.plan.ahead = 0;
        self.seen.clear();
        if let Medium::Mapped(mapped) = &self.shared.medium {
            mapped.look();
        }
    }

    /// Counts the reads of the first rows of `ids`, as many as leave `stats.reads` at `most` or
    /// below, and returns how many those are. [`read`](RowReader::read) does not count them again.
    ///
    /// # Panics
    /// If an id is not below the number of rows.
    pub fn reserve_reads(&mut self, ids: &[u32], most: u32, stats: &mut QueryStats) -> usize {
        let layout = self.shared.layout;
        for (i, &id) in ids.iter().enumerate() {
            assert!(id < self.shared.n, "id {id} of {} rows", self.shared.n);
            let unit = layout.unit_of(id);
            let fits = stats.reads + u64::from(layout.blocks_per_unit()) <= u64::from(most);
            if !fits && !self.seen.contains(unit) {
                return i;
            }
            if self.seen.insert(unit) {
                stats.reads += u64::from(layout.blocks_per_unit());
            }
        }
        ids.len()
    }

    /// Whether the query has reserved the block, or blocks, of a row.
    pub fn is_reserved(&self, id: u32) -> bool {
        self.seen.contains(self.shared.layout.unit_of(id))
    }

    /// Begins to read rows that the query reserved: the next [`begin`](RowReader::begin), or
    /// [`read`](RowReader::read), will name most of them. What it does not name is dropped. Once a
    /// query. `device_reads` and `read_bytes` are counted here.
    ///
    /// # Errors
    /// The device takes no reads.
    pub fn read_ahead(&mut self, ids: &[u32], stats: &mut QueryStats) -> Result<(), ReadError> {
        let RowReader { shared, plan, ring, .. } = self;
        let (Medium::Blocks(file), Some(ring)) = (&shared.medium, ring) else {
            self.prefetch(ids);
            return Ok(());
        };
        plan.missing.clear();
        if ids.is_empty() {
            return Ok(());
        }
        for id in ids {
            let unit = shared.layout.unit_of(*id);
            if !plan.missing.contains(&unit) && !shared.is_kept(unit) {
                plan.missing.push(unit);
            }
        }
        plan.ahead = plan.missing.len();
        shared.count(plan.ahead, stats);
        ring.begin();
        Ok(ring.queue_ahead(file, &plan.missing)?)
    }

    /// Hands row `ids[i]` to `visit(i, row)`, once for each `i`, in any order of `i`.
    ///
    /// Adds to `stats.reads` the distinct blocks that the query had not reserved before, and to
    /// `device_reads` and `read_bytes` what this call reads from the operating system (nothing when
    /// mapped or in memory, nor for blocks kept of earlier reads; others count at every call).
    ///
    /// # Errors
    /// A block contradicts its checksum; a read is refused. Some rows may have been handed out.
    ///
    /// # Panics
    /// If an id is not below the number of rows.
    pub fn read(
        &mut self,
        ids: &[u32],
        stats: &mut QueryStats,
        visit: impl FnMut(usize, Row<'_>),
    ) -> Result<(), OpenError> {
        match self.read_until(ids, &Stop::default(), stats, visit) {
            Ok(()) => Ok(()),
            Err(ReadError::Failed(error)) => Err(error),
            Err(ReadError::Stopped(_)) => unreachable!("nothing stops it"),
        }
    }

    /// As [`read`](RowReader::read), unless `stop` comes first: with io_uring even while the device
    /// does not answer; read calls and mapped pages are waited for.
    ///
    /// # Errors
    /// As [`read`](RowReader::read), and the stop.
    ///
    /// # Panics
    /// If an id is not below the number of rows.
    pub fn read_until(
        &mut self,
        ids: &[u32],
        stop: &Stop<'_>,
        stats: &mut QueryStats,
        mut visit: impl FnMut(usize, Row<'_>),
    ) -> Result<(), ReadError> {
        if self.begin(ids, stats, &mut visit) {
            while !self.arrived(stop, true, &mut visit)? {}
            return Ok(());
        }
        let layout = self.shared.layout;
        self.reserve_reads(ids, u32::MAX, stats);
        match &self.shared.medium {
            Medium::Memory(loaded) => {
                for (i, &id) in ids.iter().enumerate() {
                    let unit = loaded.unit(layout.unit_of(id));
                    visit(i, row_of(self.shared.element, &unit[layout.within_unit(id)]));
                }
                Ok(())
            }
            Medium::Mapped(mapped) => {
                for (i, &id) in ids.iter().enumerate() {
                    let unit = mapped.unit(layout.unit_of(id))?;
                    visit(i, row_of(self.shared.element, &unit[layout.within_unit(id)]));
                }
                Ok(mapped.intact()?)
            }
            Medium::Blocks(_) => self.read_one_by_one(ids, stop, stats, visit),
        }
    }

    /// Hands every row of `rows` to `visit(id, row)`, in any order; counts and stops as
    /// [`read_until`](RowReader::read_until) does.
    ///
    /// # Errors
    /// As [`read_until`](RowReader::read_until).
    ///
    /// # Panics
    /// If `rows` reaches beyond the number of rows.
    pub fn scan_until(
        &mut self,
        rows: Range<u32>,
        stop: &Stop<'_>,
        stats: &mut QueryStats,
        mut visit: impl FnMut(u32, Row<'_>),
    ) -> Result<(), ReadError> {
        assert!(rows.end <= self.shared.n, "rows to {} of {}", rows.end, self.shared.n);
        let Shared { layout, element, medium, .. } = &*self.shared;
        if rows.is_empty() {
            return Ok(());
        }
        for unit in layout.unit_of(rows.start)..=layout.unit_of(rows.end - 1) {
            let bytes = match medium {
                Medium::Memory(loaded) => loaded.unit(unit),
                Medium::Mapped(mapped) => mapped.unit(unit)?,
                Medium::Blocks(_) => {
                    let ids: Vec<u32> = rows.collect();
                    return self.read_until(&ids, stop, stats, |i, row| visit(ids[i], row));
                }
            };
            if self.seen.insert(unit) {
                stats.reads += u64::from(layout.blocks_per_unit());
            }
            for id in layout.ids_of(unit, rows.clone()) {
                visit(id, row_of(*element, &bytes[layout.within_unit(id)]));
            }
        }
        if let Medium::Mapped(mapped) = medium {
            mapped.intact()?;
        }
        Ok(())
    }

    /// Begins asynchronous reads of rows, for `arrived` to hand out; rows in the cache go to
    /// `visit(i, row)` at once. False, with nothing done, where rows come by
    /// [`read_until`](RowReader::read_until) alone. Counts as that does. A batch that was begun
    /// before and not finished is dropped; one that was read ahead continues.
    ///
    /// # Panics
    /// If an id is not below the number of rows.
    pub fn begin(
        &mut self,
        ids: &[u32],
        stats: &mut QueryStats,
        visit: impl FnMut(usize, Row<'_>),
    ) -> bool {
        if self.ring.is_none() {
            return false;
        }
        self.reserve_reads(ids, u32::MAX, stats);
        self.plan_blocks(ids, stats, visit);
        let is_ahead = take(&mut self.plan.ahead) > 0;
        if let (Some(ring), false) = (&mut self.ring, is_ahead) {
            ring.begin();
        }
        true
    }

    /// Hands the rows that have arrived to `visit(i, row)`, in any order of `i`; whether those were
    /// the last ones of the batch. With `wait`, waits for one at least.
    ///
    /// # Errors
    /// As [`read_until`](RowReader::read_until). The batch is over then: `begin` another one.
    pub fn arrived(
        &mut self,
        stop: &Stop<'_>,
        wait: bool,
        mut visit: impl FnMut(usize, Row<'_>),
    ) -> Result<bool, ReadError> {
        let RowReader { shared, plan, ring, .. } = self;
        let (Medium::Blocks(file), Some(ring)) = (&shared.medium, ring) else {
            return Ok(true);
        };
        ring.advance((file, &plan.missing), (stop, wait), |at, unit| {
            if plan.positions[at] != NOWHERE {
                shared.give(plan, plan.positions[at] as usize, unit, &mut visit);
            }
            shared.keep(plan.missing[at], unit);
        })
    }

    /// Hands out the rows that are in the cache, and plans to read the others.
    fn plan_blocks(
        &mut self,
        ids: &[u32],
        stats: &mut QueryStats,
        mut visit: impl FnMut(usize, Row<'_>),
    ) {
        let RowReader { shared, plan, .. } = self;
        plan.make(ids, shared.layout);
        let (mut missing, mut positions) = (take(&mut plan.missing), take(&mut plan.positions));
        let ahead = plan.ahead;
        missing.truncate(ahead);
        positions.clear();
        positions.resize(ahead, NOWHERE);
        for (at, &unit) in plan.units.iter().enumerate() {
            if let Some(position) = missing[..ahead].iter().position(|other| *other == unit) {
                positions[position] = at as u32;
                continue;
            }
            let give = |bytes: &[u8]| shared.give(plan, at, bytes, &mut visit);
            if !shared.cache.as_ref().is_some_and(|cache| cache.visit(unit, give)) {
                missing.push(unit);
                positions.push(at as u32);
            }
        }
        shared.count(missing.len() - ahead, stats);
        (plan.missing, plan.positions) = (missing, positions);
    }

    fn read_one_by_one(
        &mut self,
        ids: &[u32],
        stop: &Stop<'_>,
        stats: &mut QueryStats,
        mut visit: impl FnMut(usize, Row<'_>),
    ) -> Result<(), ReadError> {
        self.plan_blocks(ids, stats, &mut visit);
        let RowReader { shared, plan, buffer, .. } = self;
        let Medium::Blocks(file) = &shared.medium else {
            return Ok(());
        };
        let buffer = match buffer {
            Some(buffer) => buffer,
            None => {
                let bytes = shared.layout.unit_bytes();
                let unit = RamArray::zeroed(bytes).map_err(OpenError::from)?;
                buffer.insert(unit)
            }
        };
        for (&unit, at) in plan.missing.iter().zip(&plan.positions) {
            if let Some(why) = stop.now() {
                return Err(ReadError::Stopped(why));
            }
            file.read_unit(unit, buffer)?;
            shared.give(plan, *at as usize, buffer, &mut visit);
            shared.keep(unit, buffer);
        }
        Ok(())
    }

    /// Asks the CPU for every cache line of some rows ahead of [`read`](RowReader::read). Does
    /// nothing where rows are not in memory.
    ///
    /// # Panics
    /// If an id is not below the number of rows.
    pub fn prefetch(&self, ids: &[u32]) {
        let layout = self.shared.layout;
        for &id in ids {
            let (unit, within) = (layout.unit_of(id), layout.within_unit(id));
            let row = match &self.shared.medium {
                Medium::Memory(loaded) => &loaded.unit(unit)[within],
                Medium::Mapped(mapped) => &mapped.unverified(unit)[within],
                Medium::Blocks(_) => return,
            };
            prefetch_lines(row);
        }
    }
}

impl Shared {
    /// Hands the rows of the unit at a position of `plan` to `visit(i, row)`.
    fn give(&self, plan: &Plan, at: usize, unit: &[u8], visit: &mut impl FnMut(usize, Row<'_>)) {
        for (i, id) in plan.rows_in(at) {
            visit(i, row_of(self.element, &unit[self.layout.within_unit(id)]));
        }
    }

    /// Counts units that are read from the operating system.
    fn count(&self, units: usize, stats: &mut QueryStats) {
        stats.device_reads += units as u64 * u64::from(self.layout.blocks_per_unit());
        stats.read_bytes += (units * self.layout.unit_bytes()) as u64;
    }

    /// Whether a unit is kept of an earlier read.
    fn is_kept(&self, unit: u32) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.visit(unit, |_| ()))
    }

    /// Keeps a unit that was read and verified, if there is a cache.
    fn keep(&self, unit: u32, bytes: &[u8]) {
        if let Some(cache) = &self.cache {
            cache.keep(unit, bytes);
        }
    }
}

#[inline]
fn prefetch_lines(bytes: &[u8]) {
    // A row need not start where a line does: the last byte may lie on one more line.
    let lines = (bytes.as_ptr().addr() % LINE + bytes.len()).div_ceil(LINE);
    for line in 0..lines {
        let at = bytes.as_ptr().wrapping_add(line * LINE);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 CPU has this instruction; a prefetch touches no memory and cannot
        // fault, whatever the address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
}
