//! Devices that misbehave: late, never, short, broken, swapped.

use std::fs::{File, OpenOptions as FileOptions};
use std::io::Write;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::disk::RamArray;
use crate::stats::{Stop, Stopped};

/// The store of some rows, whose reads go to another file; `None` where io_uring is refused.
fn reading_from(written: &Written, file: File) -> Option<FullStore> {
    let store = open_or_skip(written, Io::Uring, false)?;
    let Ok(shared) = Arc::try_unwrap(store.shared) else { panic!("nobody shares it yet") };
    let Medium::Blocks(blocks) = shared.medium else { panic!("io_uring reads blocks") };
    let medium = Medium::Blocks(blocks.reading_from(file));
    Some(FullStore { shared: Arc::new(Shared { medium, ..shared }) })
}

/// A pipe with a name: a device that answers when it is written to. Open at both ends, so that
/// reads wait.
fn pipe(written: &Written) -> File {
    let path = written.dir.path().join("pipe");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    FileOptions::new().read(true).write(true).open(path).unwrap()
}

fn soon() -> Stop<'static> {
    Stop { deadline: Some(Instant::now() + Duration::from_millis(30)), ..Stop::default() }
}

#[test]
fn a_device_that_never_answers_ends_the_query_in_time() {
    let written = write(100, 32, Element::U8);
    let device = pipe(&written);
    let Some(store) = reading_from(&written, device.try_clone().unwrap()) else { return };
    let mut reader = store.reader();
    let started = Instant::now();
    let late =
        reader.read_until(&[3], &soon(), &mut QueryStats::default(), |_, _| panic!("no row"));
    assert!(matches!(late, Err(ReadError::Stopped(Stopped::Deadline))), "{late:?}");
    assert!(started.elapsed() < Duration::from_secs(5));

    // The answer comes when nobody waits for it any more: it is not taken for another one's.
    let block = fs::read(written.path()).unwrap()[4096..8192].to_vec();
    let mut other = block.clone();
    other.fill(0xee);
    (&device).write_all(&other).unwrap();
    (&device).write_all(&block).unwrap();
    let mut rows = Vec::new();
    reader
        .read_until(&[3], &soon(), &mut QueryStats::default(), |_, row| {
            assert_eq!(row, written.rows.row(3));
            rows.push(3);
        })
        .unwrap();
    assert_eq!(rows, [3]);
    // And a reader that is dropped while one is on its way waits for it.
    let late = reader.read_until(&[5], &soon(), &mut QueryStats::default(), |_, _| ());
    assert!(late.is_err());
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        (&device).write_all(&block).unwrap();
    });
    drop(reader);
    writer.join().unwrap();
}

#[test]
fn rows_arrive_while_their_reader_does_something_else() {
    let written = write(100, 32, Element::U8);
    let device = pipe(&written);
    let Some(store) = reading_from(&written, device.try_clone().unwrap()) else { return };
    let mut reader = store.reader();
    let (mut stats, never) = (QueryStats::default(), Stop::default());
    let block = fs::read(written.path()).unwrap()[4096..8192].to_vec();
    // Given up for another batch: its block, when it comes at last, is not taken for that one's.
    assert!(reader.begin(&[9], &mut stats, |_, _| panic!("no row")));
    assert!(!reader.arrived(&never, false, |_, _| panic!("no row")).unwrap());
    assert!(reader.begin(&[7, 2], &mut stats, |_, _| panic!("no row")));
    (&device).write_all(&vec![0xee; 4096]).unwrap();
    for _ in 0..10 {
        assert!(!reader.arrived(&never, false, |_, _| panic!("no row")).unwrap());
    }
    (&device).write_all(&block).unwrap();
    let mut found = Vec::new();
    while !reader
        .arrived(&never, true, |i, row| {
            assert_eq!(row, written.rows.row([7, 2][i]));
            found.push(i);
        })
        .unwrap()
    {}
    found.sort_unstable();
    assert_eq!((found, stats.reads, stats.device_reads), (vec![0, 1], 1, 2));
    // With nothing to wait for there is no waiting.
    assert!(reader.begin(&[], &mut stats, |_, _| panic!("no row")));
    assert!(reader.arrived(&never, true, |_, _| panic!("no row")).unwrap());
}

#[test]
fn less_than_a_block_is_never_taken_for_one() {
    let written = write(100, 32, Element::U8);
    let device = pipe(&written);
    (&device).write_all(&[1; 100]).unwrap();
    let Some(store) = reading_from(&written, device) else { return };
    let read = store.reader().read(&[0], &mut QueryStats::default(), |_, _| panic!("no row"));
    // It is read again the plain way, which a pipe refuses.
    assert!(read.unwrap_err().to_string().contains("vectors.bin"));
}

#[test]
fn what_the_device_refuses_is_told() {
    let written = write(100, 32, Element::U8);
    // The first pages of a process are not mapped: reading them is an input/output error.
    let broken = File::open("/proc/self/mem").unwrap();
    let Some(store) = reading_from(&written, broken) else { return };
    let read = store.reader().read(&[0], &mut QueryStats::default(), |_, _| panic!("no row"));
    let told = read.unwrap_err().to_string();
    assert!(told.contains("vectors.bin") && told.contains("read by io_uring"), "{told}");
}

#[test]
fn a_block_in_the_place_of_another_is_found() {
    let written = write(600, 32, Element::U8);
    let mut bytes = fs::read(written.path()).unwrap();
    let (first, second) = bytes[4096..].split_at_mut(4096);
    first.swap_with_slice(&mut second[..4096]);
    let path = written.dir.path().join("swapped");
    fs::write(&path, bytes).unwrap();
    let Some(store) = reading_from(&written, File::open(path).unwrap()) else { return };
    for id in [0, 200] {
        let read = store.reader().read(&[id], &mut QueryStats::default(), |_, _| panic!("no row"));
        let told = read.unwrap_err().to_string();
        assert!(told.contains("vectors.bin"), "{told}");
    }
}

#[test]
fn a_cancelled_query_reads_nothing_more() {
    let written = write(2000, 64, Element::F32);
    let cancelled = std::sync::atomic::AtomicBool::new(true);
    let stop = Stop { cancelled: Some(&cancelled), ..Stop::default() };
    for io in [Io::Pread, Io::Uring] {
        let Some(store) = open_or_skip(&written, io, false) else { continue };
        let mut reader = store.reader();
        let ids = ids(2000);
        let mut visits = 0;
        let read = reader.read_until(&ids, &stop, &mut QueryStats::default(), |_, _| visits += 1);
        assert!(matches!(read, Err(ReadError::Stopped(Stopped::Cancelled))), "{io}");
        assert!(visits < ids.len(), "{io}");
        reader.read(&ids, &mut QueryStats::default(), |_, _| ()).unwrap();
    }
}

#[test]
fn a_refused_ring_leaves_read_calls() {
    let written = write(100, 1024, Element::U8);
    let Some(store) = open_or_skip(&written, Io::Uring, false) else { return };
    let mut reader = store.reader().without_ring();
    let mut stats = QueryStats::default();
    assert!(!reader.begin(&[1], &mut stats, |_, _| panic!("no row")));
    let ids = ids(100);
    let mut visits = 0;
    reader
        .read(&ids, &mut stats, |i, row| {
            assert_eq!(row, written.rows.row(ids[i] as usize));
            visits += 1;
        })
        .unwrap();
    assert_eq!((visits, stats.reads, stats.device_reads), (ids.len(), 25, 25));
}

#[test]
fn a_file_that_is_replaced_before_it_is_opened_once_more_is_refused() {
    let written = write(100, 64, Element::U8);
    let array = OpenArray::open(written.dir.path(), &written.manifest, ArrayKind::Vectors).unwrap();
    let mut file = BlockFile::new(array, Layout::new(64));
    let copy = written.dir.path().join("copy");
    fs::copy(written.path(), &copy).unwrap();
    fs::rename(&copy, written.path()).unwrap();
    let error = file.pass_page_cache().unwrap_err().to_string();
    let no_direct_reads = error.contains("O_DIRECT");
    assert!(no_direct_reads || error.contains("vectors.bin: damaged"), "{error}");
    // Reads go on from the file that was opened first.
    let mut unit = RamArray::zeroed(4096).unwrap();
    file.read_unit(0, &mut unit).unwrap();
    assert_eq!(row_of(Element::U8, &unit[..64]), written.rows.row(0));
}

/// Touches every row, all of which were read before.
fn read_all(store: &FullStore, written: &Written) -> Result<(), OpenError> {
    let ids = ids(written.manifest.n as u32);
    let mut reader = store.reader();
    reader.begin_query();
    reader.read(&ids, &mut QueryStats::default(), |_, row| {
        std::hint::black_box(row.is_zero());
    })
}

#[test]
fn a_file_cut_while_it_is_mapped_is_an_error_and_ends_no_process() {
    let written = write(2000, 100, Element::U8);
    let (store, other) = (written.open(Io::Mapped, false).unwrap(), write(200, 100, Element::U8));
    let apart = other.open(Io::Mapped, false).unwrap();
    read_all(&store, &written).unwrap();
    let file = fs::OpenOptions::new().write(true).open(written.path()).unwrap();
    file.set_len(4096 * 3 + 100).unwrap();
    // Within the millisecond in which a change is not looked for again, or after it; in a scan, a
    // read of rows that were verified before, and from several threads.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (store, written) = (&store, &written);
            scope.spawn(move || {
                let told = read_all(store, written).unwrap_err().to_string();
                assert!(told.contains("vectors.bin: damaged at byte 12388"), "{told}");
                let (stop, mut stats) = (Stop::default(), QueryStats::default());
                let scan = store.reader().scan_until(0..2000, &stop, &mut stats, |_, _| ());
                assert!(scan.unwrap_err().to_string().contains("file has 12388 bytes by now"));
            });
        }
    });
    // Another mapping of the process goes on, and one that is new.
    read_all(&apart, &other).unwrap();
    drop(store);
    let again = other.open(Io::Mapped, false).unwrap();
    read_all(&again, &other).unwrap();
}

#[test]
fn a_page_that_was_never_touched_and_is_gone_is_an_error() {
    let written = write(2000, 100, Element::U8);
    let store = written.open(Io::Mapped, false).unwrap();
    fs::OpenOptions::new().write(true).open(written.path()).unwrap().set_len(4096).unwrap();
    let mut reader = store.reader();
    let told = reader.read(&[1999], &mut QueryStats::default(), |_, _| panic!("no row"));
    let told = told.unwrap_err().to_string();
    assert!(told.contains("file has 4096 bytes by now"), "{told}");
}

#[test]
fn rows_overwritten_after_the_first_touch_are_noticed_where_they_are_mapped() {
    let written = write(2000, 100, Element::U8);
    let store = written.open(Io::Mapped, false).unwrap();
    read_all(&store, &written).unwrap();
    // A further name, and the loss of a name, change nothing that was published.
    let link = written.dir.path().join("link");
    fs::hard_link(written.path(), &link).unwrap();
    fs::remove_file(written.path()).unwrap();
    store.check_unchanged().unwrap();

    let file = fs::OpenOptions::new().write(true).open(&link).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    file.write_all_at(&[9; 100], 4096 * 2).unwrap();
    let told = store.check_unchanged().unwrap_err().to_string();
    assert!(told.contains("written to since it was opened"), "{told}");
    // And by queries, without being told.
    let told = read_all(&store, &written).unwrap_err().to_string();
    assert!(told.contains("written to since it was opened"), "{told}");
}
