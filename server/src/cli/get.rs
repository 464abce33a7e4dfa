//! `foveal get`: what an index holds under a key.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use foveal_datasets::{KeyedRows, Row};
use foveal_index::Segment;
use serde::Serialize;
use serde_json::value::RawValue;

use super::exit_code::{Failure, Outcome};
use super::output::{Format, Output};
use super::table::Table;
use super::terminal::Terminal;

/// Rows read at a time.
const ROWS: usize = 256;

/// Print the vectors and payloads of rows, found by their keys.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GetArgs {
    /// The index: a directory made by `foveal build`.
    #[arg(long, value_name = "DIR")]
    index: PathBuf,
    /// The key of a row; may be repeated.
    #[arg(long = "key", value_name = "KEY", required = true)]
    keys: Vec<u64>,
    /// Print the vector. Without --vector and --payload both are printed.
    #[arg(long)]
    vector: bool,
    /// Print the payload, where the index has payloads.
    #[arg(long)]
    payload: bool,
    /// The form of the result; JSON is one object a row.
    #[arg(long, value_enum, default_value = "table", value_name = "table|json")]
    #[arg(hide_possible_values = true)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  foveal get --index texts.index --key 8512 --payload
  foveal get --index texts.index --key 8512 --key 9 --format json";

/// What `get --format json` prints of a row, fields in this order.
#[derive(Serialize)]
struct RowJson {
    key: u64,
    /// Null where the index has no payloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Option<Box<RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<Vec<f32>>,
}

/// Looks the keys up, in their order.
///
/// # Errors
/// No index there, or a damaged one; a key that names no row, before anything is printed.
pub(crate) fn run(args: &GetArgs, terminal: &Terminal) -> anyhow::Result<Outcome> {
    let index = Segment::open(&args.index)?;
    for key in &args.keys {
        if !index.has_key(*key)? {
            let message = format!("{}: no row has the key {key}", args.index.display());
            return Err(Failure::bad_data(message).into());
        }
    }
    let mut output = Output::stdout();
    for keys in args.keys.chunks(ROWS) {
        for row in read(args, &index, keys)? {
            match args.format {
                Format::Json => output.print_json(&row)?,
                Format::Table => output.print(&table_of(&row, terminal))?,
            }
        }
    }
    Ok(Outcome::Done)
}

fn read(args: &GetArgs, index: &Segment, keys: &[u64]) -> anyhow::Result<Vec<RowJson>> {
    let both = args.vector == args.payload;
    let vectors = (args.vector || both).then(|| index.rows(keys)).transpose()?;
    let mut rows = Vec::with_capacity(keys.len());
    for (i, key) in keys.iter().enumerate() {
        let payload = (args.payload || both).then(|| payload_of(index, *key)).transpose()?;
        let vector = vectors.as_ref().map(|vectors| numbers(vectors.row(i)));
        rows.push(RowJson { key: *key, payload, vector });
    }
    Ok(rows)
}

fn payload_of(index: &Segment, key: u64) -> anyhow::Result<Option<Box<RawValue>>> {
    let text = index.payload(key)?;
    // A line break may end the text; JSON ignores it.
    let raw = |text: String| RawValue::from_string(text.trim().to_string());
    text.map(raw).transpose().with_context(|| format!("payload of key {key}"))
}

fn numbers(row: Row<'_>) -> Vec<f32> {
    let mut numbers = vec![0.0; row.dim()];
    row.widen_into(&mut numbers);
    numbers
}

fn table_of(row: &RowJson, terminal: &Terminal) -> String {
    let mut table = Table::default();
    table.line("key", row.key.to_string());
    if let Some(payload) = &row.payload {
        let text = payload.as_ref().map_or("none", |json| json.get());
        table.line("payload", text);
    }
    if let Some(vector) = &row.vector {
        let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
        table.line("vector", numbers.join(" "));
    }
    table.render(terminal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(payload: Option<Option<&str>>, vector: Option<Vec<f32>>) -> RowJson {
        let raw = |json: &str| RawValue::from_string(json.into()).unwrap();
        RowJson { key: 7, payload: payload.map(|json| json.map(raw)), vector }
    }

    #[test]
    fn payloads_come_as_they_were_written() {
        let big = r#"{"b": 12345678901234567890123, "a": 1.0}"#;
        let json = |row: &RowJson| serde_json::to_string(row).unwrap();
        let all = row(Some(Some(big)), Some(vec![0.5, -2.0]));
        assert_eq!(json(&all), format!(r#"{{"key":7,"payload":{big},"vector":[0.5,-2.0]}}"#));
        assert_eq!(json(&row(Some(None), None)), r#"{"key":7,"payload":null}"#);
        assert_eq!(json(&row(None, Some(vec![1.0]))), r#"{"key":7,"vector":[1.0]}"#);
        let text = table_of(&all, &Terminal::plain());
        assert!(text.contains(big) && text.contains("0.5 -2"), "{text}");
    }
}
