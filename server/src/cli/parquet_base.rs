//! The base of a build in a Parquet file: vectors, keys and payloads in columns.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use foveal_datasets::format::Format;
use foveal_datasets::{ParquetColumns, ParquetFile, ReadAs, Spooled, VectorFile};
use foveal_index::disk::{Disk, Publication};
use foveal_index::{JsonLines, PayloadError, Progress};

use super::exit_code::Failure;
use super::interrupt::Interrupt;
use super::progress::Bars;

const HEADING: &str = "Columns of a Parquet file";

/// Which columns are what.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ParquetArgs {
    /// The column of vectors: lists of f32, f16, f64, u8 or i8 [default: the only such column]
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    vector_column: Option<String>,
    /// The column of keys: integers of at least 0.
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    #[arg(conflicts_with_all = ["keys", "first_key"])]
    key_column: Option<String>,
    /// The columns that become payloads, separated by commas; `*` for all but vectors and keys.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = HEADING)]
    #[arg(conflicts_with = "payload")]
    payload_columns: Vec<String>,
}

/// A base that is a Parquet file, of which no row was read yet.
pub(crate) struct ParquetBase {
    path: PathBuf,
    file: ParquetFile,
}

/// Flat copies of the columns, for as long as the build needs them.
pub(crate) struct ParquetCopies {
    path: PathBuf,
    spooled: Spooled,
    /// Removes the directory of the copies when it is dropped.
    _dir: Publication<'static>,
}

impl ParquetBase {
    /// Opens `base` and finds its columns, if it is a Parquet file.
    ///
    /// # Errors
    /// Columns named for a file that has none, or a tensor for one that has columns; a file or a
    /// column that cannot be used.
    pub(crate) fn open(
        base: &Path,
        how: &ReadAs,
        args: &ParquetArgs,
    ) -> anyhow::Result<Option<ParquetBase>> {
        let format = how.format.or_else(|| Format::of(base).ok());
        if format != Some(Format::Parquet) {
            return match args.first() {
                Some(flag) => {
                    let message = format!("{flag} goes with a Parquet file alone");
                    Err(Failure::usage(message).into())
                }
                None => Ok(None),
            };
        }
        if how.tensor.is_some() {
            let shown = base.display();
            let message = format!("{shown}: --tensor goes with a .safetensors file or index alone");
            return Err(Failure::usage(message).into());
        }
        let columns = ParquetColumns {
            vector: args.vector_column.clone(),
            key: args.key_column.clone(),
            payload: args.payload_columns.clone(),
        };
        let file = ParquetFile::open(base, &columns, how.cast)?;
        Ok(Some(ParquetBase { path: base.into(), file }))
    }

    /// How many rows it says that it holds.
    pub(crate) fn len(&self) -> usize {
        self.file.len()
    }

    /// Copies the columns beside the index `out`.
    ///
    /// # Errors
    /// Rows that cannot be used; a disk that refuses; ctrl-c. Nothing stays behind then.
    pub(crate) fn copy(&self, out: &Path, interrupt: &Interrupt) -> anyhow::Result<ParquetCopies> {
        let dir = Publication::begin(&Disk, &spool_of(out))?;
        let bars = Bars::start();
        let spooled = self.file.spool(dir.dir(), &mut |done, total| {
            bars.show(Progress { stage: "copying columns", done, total });
            match interrupt.flag().load(std::sync::atomic::Ordering::Relaxed) {
                true => Err(anyhow::Error::from(Failure::interrupted())),
                false => Ok(()),
            }
        })?;
        bars.finish();
        Ok(ParquetCopies { path: self.path.clone(), spooled, _dir: dir })
    }
}

/// Messages name the Parquet file: nobody knows the copies, and they are gone when one is read.
impl ParquetCopies {
    pub(crate) fn vectors(&self) -> anyhow::Result<VectorFile> {
        Ok(VectorFile::open(&self.spooled.vectors)?.shown_as(&self.path))
    }

    /// The keys, if a column holds them.
    pub(crate) fn keys(&self) -> Option<&[u64]> {
        self.spooled.keys.as_deref()
    }

    /// The payloads, if columns hold them.
    pub(crate) fn payload(&self) -> Result<Option<JsonLines>, PayloadError> {
        let Some(path) = &self.spooled.payload else { return Ok(None) };
        Ok(Some(JsonLines::open(path)?.copied_from(&self.path)))
    }
}

impl ParquetArgs {
    /// The first flag that is given.
    fn first(&self) -> Option<&'static str> {
        if self.vector_column.is_some() {
            Some("--vector-column")
        } else if self.key_column.is_some() {
            Some("--key-column")
        } else {
            (!self.payload_columns.is_empty()).then_some("--payload-columns")
        }
    }
}

/// Where the copies lie: beside the index, on the same device.
fn spool_of(out: &Path) -> PathBuf {
    let mut name = out.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".columns");
    out.with_file_name(name)
}
