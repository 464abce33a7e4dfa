mod faults;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use foveal_datasets::{Rows, Values};
use half::f16;

use super::*;
use crate::disk::{Disk, sample};
use crate::stats::QueryStats;

const ALL: [Io; 4] = [Io::Memory, Io::Mapped, Io::Pread, Io::Uring];

struct Written {
    dir: tempfile::TempDir,
    manifest: Manifest,
    rows: Rows,
}

/// `n` rows whose bytes do not repeat within a block.
fn write(n: u32, dim: usize, element: Element) -> Written {
    let mut values = Values::zeroed(element, n as usize * dim);
    let mut state = 12_345u32;
    for byte in values.bytes_mut() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Small, so that no float is NaN and rows compare equal to themselves.
        *byte = (state >> 24) as u8 & 0x3f;
    }
    let rows = Rows::new(dim, values).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut writer = FullStoreWriter::create(&Disk, dir.path(), n, dim, element).unwrap();
    // Parts that do not end where units do.
    for start in (0..n as usize).step_by(7) {
        let end = (start + 7).min(n as usize);
        let range = start * dim..end * dim;
        let part = match rows.values() {
            Values::F32(v) => Values::F32(v[range].to_vec()),
            Values::F16(v) => Values::F16(v[range].to_vec()),
            Values::Bf16(v) => Values::Bf16(v[range].to_vec()),
            Values::U8(v) => Values::U8(v[range].to_vec()),
            Values::I8(v) => Values::I8(v[range].to_vec()),
        };
        writer.append(&Rows::new(dim, part).unwrap()).unwrap();
    }
    let files = writer.finish().unwrap().into();
    let manifest = Manifest { n: n.into(), dim: dim as u32, element, files, ..sample::manifest() };
    Written { dir, manifest, rows }
}

impl Written {
    fn open(&self, io: Io, cold: bool) -> Result<FullStore, OpenError> {
        let options = OpenOptions { io, cold, ..OpenOptions::default() };
        FullStore::open(self.dir.path(), &self.manifest, &options)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("vectors.bin")
    }
}

/// Opens the store; `None`, said aloud, where this machine refuses the way of reading.
fn open_or_skip(written: &Written, io: Io, cold: bool) -> Option<FullStore> {
    match written.open(io, cold) {
        Ok(store) if store.io() == io => Some(store),
        Err(OpenError::Io { op: "open with O_DIRECT", .. }) => {
            eprintln!("skipped: the file system of the temporary directory refuses O_DIRECT");
            None
        }
        Ok(store) => {
            eprintln!("skipped: io {io} refused, got {}", store.io());
            None
        }
        Err(error) => panic!("{io}: {error}"),
    }
}

/// Ids in no order, some twice; more units than a ring takes at once where n allows.
fn ids(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * 37 + 5) % n).chain([0, n - 1, 0]).collect()
}

fn check_agreement(written: &Written, store: &FullStore) {
    let n = written.rows.len() as u32;
    let ids = ids(n);
    let layout = store.shared.layout;
    let mut reader = store.reader();
    for _ in 0..2 {
        let mut stats = QueryStats::default();
        let mut visits = vec![0; ids.len()];
        reader.begin_query();
        reader.prefetch(&ids);
        reader
            .read(&ids, &mut stats, |i, row| {
                assert_eq!(row, written.rows.row(ids[i] as usize), "row {}", ids[i]);
                visits[i] += 1;
            })
            .unwrap();
        assert!(visits.iter().all(|&visits| visits == 1));
        let blocks = u64::from(layout.units(n) * layout.blocks_per_unit());
        assert_eq!(stats.reads, blocks);
        let from_device = matches!(store.io(), Io::Pread | Io::Uring);
        assert_eq!(stats.device_reads, if from_device { blocks } else { 0 });
        assert_eq!(stats.read_bytes, stats.device_reads * 4096);
        // Asked for again within the query: nothing new.
        reader.read(&ids[..2], &mut stats, |_, _| ()).unwrap();
        assert_eq!(stats.reads, blocks);
    }
    reader.read(&[], &mut QueryStats::default(), |_, _| panic!("no row was requested")).unwrap();
}

#[test]
fn all_ways_give_the_rows_written() {
    for row_bytes in [1, 100, 128, 4095, 4096, 4097, 10_000] {
        for n in [1, 2, 33, 200] {
            let written = write(n, row_bytes, Element::U8);
            for io in ALL {
                if let Some(store) = open_or_skip(&written, io, false) {
                    check_agreement(&written, &store);
                }
            }
        }
    }
}

#[test]
fn cold_reads_give_the_rows_written() {
    for row_bytes in [100, 4097] {
        let written = write(200, row_bytes, Element::I8);
        for io in [Io::Pread, Io::Uring] {
            if let Some(store) = open_or_skip(&written, io, true) {
                check_agreement(&written, &store);
            }
        }
    }
}

#[test]
fn every_element_type_comes_back() {
    for element in Element::ALL {
        for dim in [1, 3, 1023, 1025, 2500] {
            let written = write(50, dim, element);
            for io in ALL {
                if let Some(store) = open_or_skip(&written, io, false) {
                    check_agreement(&written, &store);
                }
            }
        }
    }
}

#[test]
fn searchers_on_many_threads_do_not_mix() {
    let written = write(3000, 128, Element::U8);
    for io in ALL {
        let Some(store) = open_or_skip(&written, io, false) else {
            continue;
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| check_agreement(&written, &store));
            }
        });
    }
}

#[test]
fn damage_is_found_when_its_row_is_read() {
    for (row_bytes, offset) in [(128, 4096 + 2 * 4096 + 17), (10_000, 4096 + 2 * 12_288 + 9000)] {
        let written = write(100, row_bytes, Element::U8);
        let file = fs::OpenOptions::new().write(true).open(written.path()).unwrap();
        file.write_all_at(&[0xff], offset).unwrap();
        let block = offset / 4096 * 4096;
        let error = written.open(Io::Memory, false).unwrap_err().to_string();
        assert!(error.contains(&format!("vectors.bin: damaged at byte {block}")), "{error}");
        for io in [Io::Mapped, Io::Pread, Io::Uring] {
            let Some(store) = open_or_skip(&written, io, false) else {
                continue;
            };
            let mut reader = store.reader();
            let mut stats = QueryStats::default();
            let good = [0, store.shared.layout.rows_per_unit()];
            for _ in 0..3 {
                let error = reader.read(&ids(100), &mut stats, |_, _| ()).unwrap_err().to_string();
                assert!(error.contains(&format!("damaged at byte {block}")), "{io}: {error}");
                let mut visits = 0;
                reader.read(&good, &mut stats, |_, _| visits += 1).unwrap();
                assert_eq!(visits, 2);
            }
        }
    }
}

#[test]
fn any_flipped_byte_of_a_unit_is_found() {
    let written = write(64, 64, Element::U8);
    let file = fs::OpenOptions::new().read(true).write(true).open(written.path()).unwrap();
    for offset in (0..8192).step_by(13) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
        for io in ALL {
            let read = written
                .open(io, false)
                .and_then(|store| store.reader().read(&[0], &mut QueryStats::default(), |_, _| ()));
            assert!(read.is_err(), "{io} at {offset}");
        }
        file.write_all_at(&byte, offset).unwrap();
    }
}

#[test]
fn a_file_cut_while_open_is_an_error() {
    let written = write(200, 1000, Element::U8);
    for io in [Io::Pread, Io::Uring] {
        let whole = fs::read(written.path()).unwrap();
        let Some(store) = open_or_skip(&written, io, false) else {
            continue;
        };
        let file = fs::OpenOptions::new().write(true).open(written.path()).unwrap();
        file.set_len(4096 * 10 + 100).unwrap();
        let mut reader = store.reader();
        let error = reader.read(&ids(200), &mut QueryStats::default(), |_, _| ()).unwrap_err();
        assert!(error.to_string().contains("damaged at byte"), "{io}: {error}");
        reader.read(&[0], &mut QueryStats::default(), |_, _| ()).unwrap();
        fs::write(written.path(), whole).unwrap();
    }
}

#[test]
fn a_visitor_that_panics_leaves_a_reader_that_reads() {
    let written = write(3000, 128, Element::U8);
    for io in ALL {
        let Some(store) = open_or_skip(&written, io, false) else {
            continue;
        };
        let mut reader = store.reader();
        for _ in 0..100 {
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let mut stats = QueryStats::default();
                // Quietly: without the message of the panic hook.
                let stop = |_, _: Row<'_>| std::panic::resume_unwind(Box::new(()));
                reader.read(&ids(3000), &mut stats, stop)
            }));
            assert!(panicked.is_err());
        }
        let mut visits = 0;
        reader.read(&ids(3000), &mut QueryStats::default(), |_, _| visits += 1).unwrap();
        assert_eq!(visits, 3003);
    }
}

#[test]
fn a_limit_of_reads_is_kept() {
    let written = write(100, 1024, Element::U8);
    let store = written.open(Io::Mapped, false).unwrap();
    let mut reader = store.reader();
    let mut stats = QueryStats::default();
    // Blocks 0, 0, 1, 2, 1, 3, of four rows each.
    let ids = [0, 3, 4, 8, 5, 12];
    assert_eq!(reader.reserve_reads(&ids, 2, &mut stats), 3);
    assert_eq!(stats.reads, 2);
    assert_eq!(reader.reserve_reads(&ids, 3, &mut stats), 5);
    reader.read(&ids[..5], &mut stats, |_, _| ()).unwrap();
    assert_eq!(stats.reads, 3);
    reader.begin_query();
    assert_eq!(reader.reserve_reads(&ids, 0, &mut QueryStats::default()), 0);
}

#[test]
fn options_choose_the_way() {
    let written = write(100, 1000, Element::U8);
    let bytes = fs::metadata(written.path()).unwrap().len();
    let open = |io, memory, cold| {
        let options = OpenOptions { io, memory, cold, ..OpenOptions::default() };
        FullStore::open(written.dir.path(), &written.manifest, &options)
    };
    let io = |memory| open(Io::Auto, memory, false).unwrap().io();
    let loaded = 100 * 1000;
    let from_disk = if uring::is_available() { Io::Uring } else { Io::Pread };
    assert_eq!(io(None), Io::Mapped);
    assert_eq!(io(Some(bytes)), Io::Mapped);
    assert_eq!(io(Some(bytes - 1)), from_disk);
    assert_eq!(open(Io::Pread, Some(0), false).unwrap().io(), Io::Pread);
    assert_eq!(open(Io::Memory, Some(loaded), false).unwrap().io(), Io::Memory);
    for (io, memory, cold) in [
        (Io::Memory, Some(loaded - 1), false),
        (Io::Mapped, Some(bytes - 1), false),
        (Io::Memory, None, true),
        (Io::Mapped, None, true),
        (Io::None, None, false),
    ] {
        let error = open(io, memory, cold).unwrap_err();
        assert!(matches!(error, OpenError::Usage { .. }), "{io} {cold}: {error}");
    }
}

/// A limit keeps 9 of 25 blocks: what was read is read again only if others took its place, and
/// rows are the same.
#[test]
fn a_memory_limit_keeps_blocks_that_were_read() {
    let written = write(100, 1024, Element::U8);
    let limit = 9 * 4200 + 200;
    for io in [Io::Pread, Io::Uring] {
        let options = OpenOptions { io, memory: Some(limit), ..OpenOptions::default() };
        let store = FullStore::open(written.dir.path(), &written.manifest, &options).unwrap();
        let mut reader = store.reader();
        let mut read = |ids: &[u32]| {
            let mut stats = QueryStats::default();
            let mut visits = vec![0; ids.len()];
            reader.begin_query();
            reader
                .read(ids, &mut stats, |i, row| {
                    assert_eq!(row, written.rows.row(ids[i] as usize), "row {}", ids[i]);
                    visits[i] += 1;
                })
                .unwrap();
            assert!(visits.iter().all(|&visits| visits == 1));
            assert_eq!(stats.read_bytes, stats.device_reads * 4096);
            (stats.reads, stats.device_reads)
        };
        assert_eq!(read(&[1, 50, 2]), (2, 2), "{io}");
        assert_eq!(read(&[51, 3, 99, 3]), (3, 1), "{io}: two blocks are at hand");
        assert_eq!(read(&[0, 48]), (2, 0), "{io}");
        for _ in 0..3 {
            let (reads, device_reads) = read(&ids(100));
            assert!(reads == 25 && device_reads >= 25 - 9, "{io}: {device_reads}");
            let kept = store.shared.cache.as_ref().unwrap().bytes();
            assert!(kept > 0 && kept <= limit, "{io}: {kept}");
        }
        let crowd = |first: usize| {
            let mut reader = store.reader();
            for id in (0..2000).map(|i| ((first + i * 7) % 100) as u32) {
                let check = |_, row: Row<'_>| assert_eq!(row, written.rows.row(id as usize));
                reader.read(&[id], &mut QueryStats::default(), check).unwrap();
            }
        };
        std::thread::scope(|scope| {
            (0..4).for_each(|first| drop(scope.spawn(move || crowd(first))));
        });
    }
    let cold = OpenOptions { memory: Some(limit), cold: true, ..OpenOptions::default() };
    if let Ok(store) = FullStore::open(written.dir.path(), &written.manifest, &cold) {
        assert!(store.shared.cache.is_none());
    }
}

#[test]
fn rows_read_ahead_arrive_once_and_the_others_are_dropped() {
    let written = write(100, 1024, Element::U8);
    for (io, memory) in ALL.into_iter().map(|io| (io, None)).chain([(Io::Uring, Some(40_000))]) {
        let options = OpenOptions { io, memory, ..OpenOptions::default() };
        let store = FullStore::open(written.dir.path(), &written.manifest, &options).unwrap();
        let mut reader = store.reader();
        for (ahead, ids) in [
            (&[0, 50, 51][..], &[1, 2, 50, 0, 99][..]),
            (&[7, 8, 70], &[40]),
            (&[30], &[]),
            (&[], &[3, 90]),
            (&[60, 61], &[60, 61]),
        ] {
            let mut stats = QueryStats::default();
            let mut visits = vec![0; ids.len()];
            reader.begin_query();
            let reserved = reader.reserve_reads(ahead, u32::MAX, &mut stats);
            assert_eq!(reserved, ahead.len());
            reader.read_ahead(ahead, &mut stats).unwrap();
            let visit = |i: usize, row: Row<'_>| {
                assert_eq!(row, written.rows.row(ids[i] as usize), "{io}: row {}", ids[i]);
                visits[i] += 1;
            };
            reader.read(ids, &mut stats, visit).unwrap();
            assert!(visits.iter().all(|&visits| visits == 1), "{io}: {visits:?}");
            let units = |ids: &mut dyn Iterator<Item = &u32>| {
                ids.map(|id| id / 4).collect::<std::collections::BTreeSet<_>>().len() as u32
            };
            let blocks = u64::from(units(&mut ahead.iter().chain(ids)));
            assert_eq!(stats.reads, blocks, "{io}");
            assert_eq!(stats.read_bytes, stats.device_reads * 4096);
            assert!(stats.device_reads <= blocks, "{io}");
            if store.io() == Io::Uring && memory.is_none() {
                assert_eq!(stats.device_reads, blocks);
            }
        }
        // Given up: the next query takes none of it for its own.
        reader.begin_query();
        reader.read_ahead(&[20, 44], &mut QueryStats::default()).unwrap();
        reader.begin_query();
        let mut found = Vec::new();
        let visit = |i: usize, row: Row<'_>| {
            assert_eq!(row, written.rows.row(80 + i));
            found.push(i);
        };
        reader.read(&[80, 81], &mut QueryStats::default(), visit).unwrap();
        assert_eq!(found, [0, 1], "{io}");
    }
}

#[test]
fn cached_bytes_are_those_in_memory() {
    let written = write(1000, 1024, Element::U8);
    let bytes = fs::metadata(written.path()).unwrap().len();
    assert_eq!(written.open(Io::Memory, false).unwrap().cached_bytes().unwrap(), bytes - 4096);
    // Three rows a block, and a row on three blocks: what pads them is not loaded.
    for row in [1152, 4096 * 2 + 1] {
        let padded = write(10, row, Element::U8).open(Io::Memory, false).unwrap();
        assert_eq!(padded.cached_bytes().unwrap(), 10 * row as u64);
    }
    // Just written and read: the page cache holds it, unless the machine is short of memory.
    let mapped = written.open(Io::Mapped, false).unwrap();
    let cached = mapped.cached_bytes().unwrap();
    assert!(cached > 0 && cached <= bytes, "{cached} of {bytes}");
    assert!(written.open(Io::Pread, false).unwrap().cached_bytes().unwrap() <= bytes);
}

#[test]
fn a_manifest_of_other_rows_is_refused() {
    let written = write(100, 64, Element::U8);
    for (dim, element) in [(32, Element::U8), (64, Element::F32), (128, Element::U8)] {
        let manifest = Manifest { dim, element, ..written.manifest.clone() };
        let error = FullStore::open(written.dir.path(), &manifest, &OpenOptions::default());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("vectors.bin: damaged"), "{error}");
    }
}

#[test]
fn names_of_io_come_back() {
    for io in ALL.into_iter().chain([Io::Auto]) {
        assert_eq!(io.to_string().parse(), Ok(io));
    }
    assert!("none".parse::<Io>().unwrap_err().contains("wanted auto, memory"));
}

#[test]
fn stores_and_readers_cross_threads() {
    fn crosses<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    crosses::<RowReader>();
    shared::<FullStore>();
    // The reader's rows are typed: half floats need their alignment.
    assert_eq!(align_of::<f16>(), 2);
}
