mod damage;

use std::fs;
use std::sync::Arc;

use half::f16;
use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FixedLenByteArray, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::*;
use crate::error::ErrorKind;
use crate::row_source::RowSource;
use crate::rows::{Element, MAX_DIM, Row};
use crate::vector_file::VectorFile;

/// Numbers of lists, by row; `None` is a null.
type Lists<T> = Vec<Option<Vec<Option<T>>>>;

fn lists<T: Clone>(rows: &[&[T]]) -> Lists<T> {
    rows.iter().map(|row| Some(row.iter().cloned().map(Some).collect())).collect()
}

/// Writes a column of optional lists of optional numbers.
fn write_lists<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, fs::File>,
    rows: &Lists<T::T>,
) {
    let (mut values, mut defined, mut repeats) = (vec![], vec![], vec![]);
    for row in rows {
        let numbers = row.as_deref().unwrap_or_default();
        if numbers.is_empty() {
            defined.push(i16::from(row.is_some()));
            repeats.push(0);
        }
        for (i, number) in numbers.iter().enumerate() {
            defined.push(2 + i16::from(number.is_some()));
            repeats.push(i16::from(i > 0));
            values.extend(number.clone());
        }
    }
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(&values, Some(&defined), Some(&repeats)).unwrap();
    column.close().unwrap();
}

fn write_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, fs::File>,
    values: &[T::T],
    defined: Option<&[i16]>,
) {
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, defined, None).unwrap();
    column.close().unwrap();
}

/// Writes a file of row groups, each by `write`.
fn write_file(
    path: &Path,
    schema: &str,
    groups: usize,
    write: &dyn Fn(usize, &mut SerializedRowGroupWriter<'_, fs::File>),
) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    for number in 0..groups {
        let mut group = writer.next_row_group().unwrap();
        write(number, &mut group);
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn list_of(number: &str) -> String {
    format!(
        "message rows {{ optional group emb (LIST) {{ repeated group list {{ \
         optional {number}; }} }} }}"
    )
}

/// A file with one column of lists.
fn one_column<T: DataType>(path: &Path, number: &str, rows: &Lists<T::T>) {
    write_file(path, &list_of(number), 1, &|_, group| write_lists::<T>(group, rows));
}

fn spool(path: &Path, columns: &ParquetColumns, cast: bool) -> Result<Spooled, FileError> {
    let dir = tempfile::tempdir().unwrap();
    let spooled = ParquetFile::open(path, columns, cast)?.spool(dir.path(), &mut |_, _| Ok(()))?;
    // Kept for as long as the test needs it.
    let _ = dir.keep();
    Ok(spooled)
}

/// The vectors of a file with one column.
fn vectors(path: &Path, cast: bool) -> Result<VectorFile, FileError> {
    VectorFile::open(spool(path, &ParquetColumns::default(), cast)?.vectors)
}

fn refused(path: &Path, columns: &ParquetColumns) -> String {
    let error = spool(path, columns, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadData, "{error}");
    error.to_string()
}

#[test]
fn each_type_of_number_becomes_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    one_column::<FloatType>(&path, "float element", &lists(&[&[1.5, -2.0], &[0.1, 3.0]]));
    let file = vectors(&path, false).unwrap();
    assert_eq!((file.len(), file.dim(), RowSource::element(&file)), (2, 2, Element::F32));
    assert_eq!(file.read(1..2).unwrap().row(0), Row::F32(&[0.1, 3.0]));

    one_column::<DoubleType>(&path, "double element", &lists(&[&[1.5], &[0.1]]));
    let error = vectors(&path, false).unwrap_err().to_string();
    let wanted = "found 0.1 of f64, which --cast rounds in column \"emb\", row 1, number 0";
    assert!(error.contains(wanted), "{error}");
    assert_eq!(vectors(&path, true).unwrap().read(1..2).unwrap().row(0), Row::F32(&[0.1]));

    let halves = |numbers: &[f32]| -> Vec<FixedLenByteArray> {
        numbers.iter().map(|x| f16::from_f32(*x).to_le_bytes().to_vec().into()).collect()
    };
    let rows = [halves(&[1.5, -2.0]), halves(&[3.0, 0.5])];
    let number = "fixed_len_byte_array(2) element (FLOAT16)";
    one_column::<FixedLenByteArrayType>(&path, number, &lists(&[&rows[0], &rows[1]]));
    let file = vectors(&path, false).unwrap();
    assert_eq!(RowSource::element(&file), Element::F16);
    let wanted = [f16::from_f32(3.0), f16::from_f32(0.5)];
    assert_eq!(file.read(1..2).unwrap().row(0), Row::F16(&wanted));

    one_column::<Int32Type>(&path, "int32 element (UINT_8)", &lists(&[&[0, 255], &[7, 8]]));
    assert_eq!(vectors(&path, false).unwrap().read(0..1).unwrap().row(0), Row::U8(&[0, 255]));
    one_column::<Int32Type>(&path, "int32 element (INT_8)", &lists(&[&[-128, 127]]));
    assert_eq!(vectors(&path, false).unwrap().read(0..1).unwrap().row(0), Row::I8(&[-128, 127]));
    one_column::<Int32Type>(&path, "int32 element", &lists(&[&[1, 2]]));
    let error = refused(&path, &ParquetColumns::default());
    assert!(error.contains("no vectors; wanted a column of lists of f32"), "{error}");
}

#[test]
fn vectors_that_are_none_are_named_with_row_and_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    let good = Some(vec![Some(1.0f32), Some(2.0)]);
    for (bad, wanted) in [
        (None, "found no numbers in column \"emb\", row 2; wanted finite numbers"),
        (Some(vec![]), "found no numbers in column \"emb\", row 2; wanted finite"),
        (Some(vec![Some(1.0), None]), "found null in column \"emb\", row 2, number 1; wanted"),
        (Some(vec![Some(1.0)]), "a vector of 1 numbers in row 2; wanted 2, as in row 0"),
        (Some(vec![Some(1.0); 3]), "a vector of 3 numbers in row 2; wanted 2, as in row 0"),
        (Some(vec![Some(f32::NAN), Some(1.0)]), "found NaN in column \"emb\", row 2, number 0"),
        (
            Some(vec![Some(1.0), Some(f32::INFINITY)]),
            "found inf in column \"emb\", row 2, number 1",
        ),
    ] {
        let rows = vec![good.clone(), good.clone(), bad, good.clone()];
        one_column::<FloatType>(&path, "float element", &rows);
        let error = refused(&path, &ParquetColumns::default());
        assert!(error.starts_with(path.to_str().unwrap()) && error.contains(wanted), "{error}");
    }
    one_column::<FloatType>(&path, "float element", &vec![]);
    assert!(refused(&path, &ParquetColumns::default()).contains("holds no rows"));
}

const TABLE: &str = "message rows { required int64 id; optional group emb (LIST) { \
    repeated group list { optional float element; } } optional binary title (UTF8); \
    optional group emb2 (LIST) { repeated group list { optional float element; } } }";

/// Two row groups of three rows: key, vector, title, another vector. `ids` replaces the keys.
fn table(path: &Path, ids: [i64; 6]) {
    write_file(path, TABLE, 2, &|group, out| {
        let first = group * 3;
        write_column::<Int64Type>(out, &ids[first..][..3], None);
        let row = |i: usize| vec![i as f32, 0.5];
        let rows: Vec<Vec<f32>> = (first..first + 3).map(row).collect();
        write_lists::<FloatType>(out, &lists(&[&rows[0], &rows[1], &rows[2]]));
        let title = |i: usize| ByteArray::from(format!("title \"{i}\"").as_str());
        write_column::<ByteArrayType>(out, &[title(first), title(first + 2)], Some(&[1, 0, 1]));
        write_lists::<FloatType>(out, &lists(&[&[1.0], &[2.0], &[3.0]]));
    });
}

fn columns(vector: &str, key: Option<&str>, payload: &[&str]) -> ParquetColumns {
    let payload = payload.iter().map(|name| name.to_string()).collect();
    ParquetColumns { vector: Some(vector.into()), key: key.map(Into::into), payload }
}

#[test]
fn columns_become_vectors_keys_and_payloads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    table(&path, [5, 3, i64::MAX, 0, 1, 2]);
    let spooled = spool(&path, &columns("emb", Some("id"), &["title", "id"]), false).unwrap();
    let file = VectorFile::open(&spooled.vectors).unwrap();
    let rows = file.read(0..6).unwrap();
    assert!((0..6).all(|i| rows.row(i) == Row::F32(&[i as f32, 0.5])));
    assert_eq!(spooled.keys.unwrap(), [5, 3, i64::MAX as u64, 0, 1, 2]);
    let payload = fs::read_to_string(spooled.payload.unwrap()).unwrap();
    let lines: Vec<&str> = payload.lines().collect();
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[0], r#"{"id":5,"title":"title \"0\""}"#);
    assert_eq!(lines[1], r#"{"id":3,"title":null}"#);
    assert_eq!(lines[2], r#"{"id":9223372036854775807,"title":"title \"2\""}"#);
    // All others.
    let all = spool(&path, &columns("emb", Some("id"), &["*"]), false).unwrap();
    let payload = fs::read_to_string(all.payload.unwrap()).unwrap();
    assert_eq!(payload.lines().next(), Some(r#"{"emb2":[1.0],"title":"title \"0\""}"#));
    // Nothing else.
    let bare = spool(&path, &columns("emb2", None, &[]), false).unwrap();
    assert!(bare.keys.is_none() && bare.payload.is_none());
    assert_eq!(VectorFile::open(bare.vectors).unwrap().dim(), 1);
}

#[test]
fn columns_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    table(&path, [5, 3, 4, 0, -1, 2]);
    let wrong = |columns: ParquetColumns| refused(&path, &columns);
    let error = wrong(ParquetColumns::default());
    assert!(error.contains("several columns of vectors; wanted --vector-column, one of emb, emb2"));
    let error = wrong(columns("embedding", None, &[]));
    assert!(
        error.contains("no column \"embedding\"; wanted one of id, emb, title, emb2"),
        "{error}"
    );
    let error = wrong(columns("title", None, &[]));
    assert!(
        error.contains("other values in column \"title\"; wanted a column of lists"),
        "{error}"
    );
    let error = wrong(columns("emb", Some("title"), &[]));
    assert!(error.contains("other values in column \"title\"; wanted integers"), "{error}");
    let error = wrong(columns("emb", Some("key"), &[]));
    assert!(error.contains("no column \"key\""), "{error}");
    let error = wrong(columns("emb", None, &["title", "url"]));
    assert!(error.contains("no column \"url\""), "{error}");
    let error = wrong(columns("emb", Some("id"), &[]));
    assert!(error.contains("found -1 in column \"id\", row 4; wanted keys"), "{error}");
    let direct = VectorFile::open(&path).unwrap_err().to_string();
    assert!(direct.contains("`foveal build` reads Parquet"), "{direct}");
}

/// Two rows of two values in each column, whatever its place in the schema.
fn write_leaves(path: &Path, schema: &str) {
    write_file(path, schema, 1, &|_, out| {
        while let Some(mut column) = out.next_column().unwrap() {
            let levels = match column.untyped() {
                ColumnWriter::FloatColumnWriter(writer) => {
                    let defined = [writer.get_descriptor().max_def_level(); 4];
                    writer.write_batch(&[1.0, 2.0, 3.0, 4.0], Some(&defined), Some(&[0, 1, 0, 1]))
                }
                ColumnWriter::ByteArrayColumnWriter(writer) => {
                    let defined = [writer.get_descriptor().max_def_level(); 4];
                    let values = ["a", "b", "c", "d"].map(ByteArray::from);
                    writer.write_batch(&values, Some(&defined), Some(&[0, 1, 0, 1]))
                }
                _ => unreachable!("columns of numbers and of texts"),
            };
            assert_eq!(levels.unwrap(), 4);
            column.close().unwrap();
        }
    });
}

#[test]
fn lists_of_any_writer_are_vectors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    for column in [
        "required group emb (LIST) { repeated group list { required float element; } }",
        "optional group emb (LIST) { repeated group bag { optional float array_element; } }",
        "optional group emb (LIST) { repeated float array; }",
        "repeated float emb;",
    ] {
        write_leaves(&path, &format!("message rows {{ {column} }}"));
        let rows = vectors(&path, false).unwrap().read(0..2).unwrap();
        assert_eq!((rows.row(0), rows.row(1)), (Row::F32(&[1.0, 2.0]), Row::F32(&[3.0, 4.0])));
    }
}

#[test]
fn maps_and_structs_are_no_vectors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    for column in [
        "optional group emb (MAP) { repeated group key_value { required binary key (UTF8); \
            optional float value; } }",
        "optional group emb { repeated float a; repeated float b; }",
        "optional group emb { repeated float a; }",
        "optional group emb { repeated group list { optional float element; } }",
        "optional group emb (LIST) { repeated group list { optional float a; optional float b; } }",
        "repeated group emb { optional float a; }",
    ] {
        write_leaves(&path, &format!("message rows {{ {column} }}"));
        let error = refused(&path, &ParquetColumns::default());
        assert!(error.contains("found no vectors; wanted a column of lists"), "{column}: {error}");
        let error = refused(&path, &columns("emb", None, &[]));
        let wanted = "found other values in column \"emb\"; wanted a column of lists";
        assert!(error.contains(wanted), "{column}: {error}");
    }
}

#[test]
fn keys_may_be_unsigned_and_never_null() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    let table = |kind: &str, values: &[i64], defined: &[i16]| {
        let schema = format!(
            "message rows {{ optional int64 id{kind}; optional group emb (LIST) {{ \
             repeated group list {{ optional float element; }} }} }}"
        );
        write_file(&path, &schema, 1, &|_, out| {
            write_column::<Int64Type>(out, values, Some(defined));
            let rows = vec![Some(vec![Some(1.0)]); defined.len()];
            write_lists::<FloatType>(out, &rows);
        });
    };
    let with_keys = columns("emb", Some("id"), &[]);
    table(" (UINT_64)", &[-1, 7], &[1, 1]);
    assert_eq!(spool(&path, &with_keys, false).unwrap().keys.unwrap(), [u64::MAX, 7]);
    table("", &[1, 7], &[1, 0, 1]);
    let error = refused(&path, &with_keys);
    assert!(error.contains("found null in column \"id\", row 1; wanted keys"), "{error}");
    table(" (TIMESTAMP_MILLIS)", &[1, 7], &[1, 1]);
    assert!(refused(&path, &with_keys).contains("wanted integers"));
}

#[test]
fn rows_that_are_not_as_many_as_promised_are_counted_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    table(&path, [5, 3, 4, 0, 1, 2]);
    let mut file = ParquetFile::open(&path, &columns("emb", Some("id"), &["*"]), false).unwrap();
    file.rows = 9;
    let schema = file.payload.clone().unwrap();
    let tell: &mut dyn FnMut(usize) -> Result<(), FileError> = &mut |_| Ok(());
    for (refused, place) in [
        (file.spool_payload(&schema, dir.path(), tell).unwrap_err(), "the columns of payloads"),
        (file.spool_vectors(dir.path(), tell).unwrap_err(), "column \"emb\""),
        (file.read_keys(0, tell).unwrap_err(), "column \"id\""),
    ] {
        let error = refused.to_string();
        let wanted = format!("found 6 rows in {place}; wanted 9 as its metadata says");
        assert!(error.ends_with(&wanted), "{error}");
    }
}

#[test]
fn rows_beyond_those_promised_end_the_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    table(&path, [5, 3, 4, 0, 1, 2]);
    let mut file = ParquetFile::open(&path, &columns("emb", Some("id"), &["*"]), false).unwrap();
    file.rows = 2;
    let schema = file.payload.clone().unwrap();
    let tell: &mut dyn FnMut(usize) -> Result<(), FileError> = &mut |done| {
        assert!(done <= 2);
        Ok(())
    };
    for (refused, place) in [
        (file.spool_payload(&schema, dir.path(), tell).unwrap_err(), "the columns of payloads"),
        (file.spool_vectors(dir.path(), tell).unwrap_err(), "column \"emb\""),
        (file.read_keys(0, tell).unwrap_err(), "column \"id\""),
    ] {
        let error = refused.to_string();
        let wanted = format!("found more than 2 rows in {place}; wanted as many as its metadata");
        assert!(error.contains(&wanted), "{error}");
    }
}

/// Lists of 1,000 rows, and damage behind the first few of them.
fn damaged_behind(path: &Path, dims: &[usize; 4]) {
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_write_batch_size(16)
        .set_data_page_size_limit(64);
    let schema = Arc::new(parse_message_type(&list_of("float element")).unwrap());
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties.build())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let rows = (0..1000).map(|row| Some(vec![Some(0.5); dims[row.min(3)]])).collect();
    write_lists::<FloatType>(&mut group, &rows);
    group.close().unwrap();
    writer.close().unwrap();
    let mut bytes = fs::read(path).unwrap();
    let half = bytes.len() / 4..bytes.len() / 2;
    bytes[half].fill(0xff);
    fs::write(path, bytes).unwrap();
}

/// Rows of another length are found before much is read: the damage behind them is not met.
#[test]
fn rows_of_another_length_are_met_before_many_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    damaged_behind(&path, &[16; 4]);
    let error = refused(&path, &ParquetColumns::default());
    assert!(error.contains("no sound Parquet file (column \"emb\", row "), "{error}");
    // The second sum is that of 1,000 rows of 8.
    for dims in [[1, 16, 16, 16], [8, 12, 4, 8], [16, 16, 4, 16]] {
        damaged_behind(&path, &dims);
        let error = refused(&path, &ParquetColumns::default());
        let row = dims.iter().position(|dim| *dim != dims[0]).unwrap();
        let wanted = format!("{} numbers in row {row}; wanted {}, as", dims[row], dims[0]);
        assert!(error.contains(&wanted), "{error}");
    }
}

#[test]
fn lists_that_are_too_long_are_refused_unread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    let rows = vec![Some(vec![Some(0.5f32); MAX_DIM + 1])];
    one_column::<FloatType>(&path, "float element", &rows);
    let error = refused(&path, &ParquetColumns::default());
    let wanted = "found 65536 numbers for 1 rows in column \"emb\", row group 0; wanted at most \
        65535 a row";
    assert!(error.contains(wanted), "{error}");
}
