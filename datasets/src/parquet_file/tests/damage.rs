//! Damaged files, refused reads, panics of the reader, and callers that stop.

use super::*;

/// A read that the operating system refuses is no damage.
#[test]
fn refused_reads_are_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    table(&path, [5, 3, 4, 0, 1, 2]);
    let unreadable = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let emb = columns("emb", None, &[]);
    let error = ParquetFile::of(&path, unreadable, &emb, false).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    let start = format!("{}: cannot be read: ", path.display());
    assert!(error.to_string().starts_with(&start), "{error}");
}

#[test]
fn types_that_the_reader_does_not_know_are_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    let schema = "message rows { required fixed_len_byte_array(12) span (INTERVAL); \
        optional group emb (LIST) { repeated group list { optional float element; } } }";
    write_file(&path, schema, 1, &|_, out| {
        write_column::<FixedLenByteArrayType>(out, &[vec![7; 12].into()], None);
        write_lists::<FloatType>(out, &lists(&[&[1.0]]));
    });
    assert!(spool(&path, &columns("emb", None, &[]), false).is_ok());
    let error = refused(&path, &columns("emb", None, &["span"]));
    let wanted = "found what the Parquet reader cannot read in row 0, columns of payloads (not \
        implemented: Conversion for physical type FIXED_LEN_BYTE_ARRAY, converted type INTERVAL";
    assert!(error.contains(wanted) && !error.contains("sound"), "{error}");
}

/// A panic of the caller is a bug there and no damage of the file.
#[test]
fn panics_of_the_caller_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    table(&path, [5, 3, 4, 0, 1, 2]);
    let file = ParquetFile::open(&path, &columns("emb", None, &[]), false).unwrap();
    let spool = || {
        file.spool::<FileError>(dir.path(), &mut |_, _| {
            assert!(!is_reading_parquet());
            std::panic::resume_unwind(Box::new("of the caller"));
        })
    };
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(spool)).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"of the caller"));
}

/// A damaged file gives an error that names it, or other rows, never a panic.
#[test]
fn damaged_files_do_not_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    table(&path, [5, 3, 4, 0, 1, 2]);
    let good = fs::read(&path).unwrap();
    let all = columns("emb", Some("id"), &["*"]);
    let mut random = crate::seeded::Seeded::new(1);
    let mut refused = 0;
    for i in 0..good.len() * 2 {
        let mut bad = good.clone();
        let at = i % good.len();
        match i / good.len() {
            0 => bad[at] ^= 1 << random.below(8),
            _ => bad.truncate(at),
        }
        fs::write(&path, &bad).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let read = ParquetFile::open(&path, &all, false)
            .and_then(|file| file.spool(dir.path(), &mut |_, _| Ok(())));
        if let Err(error) = read {
            refused += 1;
            assert_eq!(error.kind(), ErrorKind::BadData, "mutation {i}: {error}");
            let text = error.to_string();
            let start = format!("{}: ", path.display());
            assert!(text.starts_with(&start) && !text.contains('\n'), "mutation {i}: {text}");
        }
    }
    // Every file that was cut, and many of those with a wrong bit.
    assert!(refused > good.len() * 5 / 4, "{refused} of {} were refused", good.len() * 2);
}

#[test]
fn the_caller_may_end_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    table(&path, [5, 3, 4, 0, 1, 2]);
    let file = ParquetFile::open(&path, &columns("emb", Some("id"), &[]), false).unwrap();
    let mut told = 0;
    let ended = file.spool::<FileError>(dir.path(), &mut |done, total| {
        told += 1;
        assert!(done <= total && total == 12);
        if told == 2 { Err(FileError::Empty { path: "told".into() }) } else { Ok(()) }
    });
    assert!(ended.is_err() && told == 2);
}
