//! Which columns of a file hold vectors, keys and fields of payloads?

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, Type};

use super::ParquetColumns;
use super::guard::guarded;
use crate::error::FileError;
use crate::rows::Element;

/// The column of lists of numbers.
pub(super) struct VectorColumn {
    pub(super) name: String,
    /// Its number among all columns.
    pub(super) leaf: usize,
    pub(super) numbers: Numbers,
}

/// The type of the numbers in a column.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    F32,
    F16,
    /// Becomes f32: exactly, or by rounding.
    F64 {
        cast: bool,
    },
    U8,
    I8,
}

impl Numbers {
    /// What a column holds; `None` where no vector can be made of it.
    fn of(column: &ColumnDescriptor, cast: bool) -> Option<Numbers> {
        let is_half = column.logical_type_ref() == Some(&LogicalType::Float16);
        match (column.physical_type(), integer(column)) {
            (Physical::FLOAT, _) => Some(Numbers::F32),
            (Physical::DOUBLE, _) => Some(Numbers::F64 { cast }),
            (Physical::FIXED_LEN_BYTE_ARRAY, _) if is_half => Some(Numbers::F16),
            (Physical::INT32, Some((8, false))) => Some(Numbers::U8),
            (Physical::INT32, Some((8, true))) => Some(Numbers::I8),
            _ => None,
        }
    }

    pub(super) fn element(self) -> Element {
        match self {
            Numbers::F32 | Numbers::F64 { .. } => Element::F32,
            Numbers::F16 => Element::F16,
            Numbers::U8 => Element::U8,
            Numbers::I8 => Element::I8,
        }
    }

    /// The extension of a flat file of such numbers.
    pub(super) fn extension(self) -> &'static str {
        match self.element() {
            Element::F16 => "f16bin",
            Element::U8 => "u8bin",
            Element::I8 => "i8bin",
            Element::F32 | Element::Bf16 => "fbin",
        }
    }
}

/// Bits and sign of a column that says that it holds integers of fewer bits than are stored, or
/// without sign.
pub(super) fn integer(column: &ColumnDescriptor) -> Option<(u8, bool)> {
    if let Some(LogicalType::Integer(kind)) = column.logical_type_ref() {
        return Some((kind.bit_width as u8, kind.is_signed));
    }
    match column.converted_type() {
        ConvertedType::UINT_8 => Some((8, false)),
        ConvertedType::INT_8 => Some((8, true)),
        ConvertedType::UINT_16 => Some((16, false)),
        ConvertedType::UINT_32 => Some((32, false)),
        ConvertedType::UINT_64 => Some((64, false)),
        _ => None,
    }
}

/// The columns of a file.
pub(super) struct Schema<'a> {
    pub(super) path: &'a Path,
    pub(super) reader: &'a SerializedFileReader<File>,
}

impl Schema<'_> {
    fn leaves(&self) -> &[Arc<ColumnDescriptor>] {
        self.reader.metadata().file_metadata().schema_descr().columns()
    }

    fn roots(&self) -> &[Arc<Type>] {
        self.reader.metadata().file_metadata().schema_descr().root_schema().get_fields()
    }

    /// The only top-level column of a name.
    fn root(&self, name: &str) -> Result<&Arc<Type>, FileError> {
        let mut named = self.roots().iter().filter(|field| field.name() == name);
        match (named.next(), named.next()) {
            (Some(field), None) => Ok(field),
            (None, _) => {
                let names = self.roots().iter().map(|field| field.name().to_string());
                Err(self.wrong(format!("no column {name:?}"), one_of(names)))
            }
            (Some(_), Some(_)) => {
                Err(self.wrong(format!("two columns {name:?}"), "names that differ".into()))
            }
        }
    }

    pub(super) fn vector_column(
        &self,
        name: Option<&str>,
        cast: bool,
    ) -> Result<VectorColumn, FileError> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let candidates: Vec<VectorColumn> = (self.leaves().iter().enumerate())
            .filter(|(leaf, _)| is_list(schema.get_column_root(*leaf)))
            .filter_map(|(leaf, column)| {
                let name = column.path().parts().first()?.clone();
                Some(VectorColumn { name, leaf, numbers: Numbers::of(column, cast)? })
            })
            .collect();
        let wanted = "a column of lists of f32, f16, f64, u8 or i8";
        let Some(name) = name else {
            let names: Vec<String> = candidates.iter().map(|found| found.name.clone()).collect();
            let mut candidates = candidates.into_iter();
            return match (candidates.next(), candidates.next()) {
                (Some(only), None) => Ok(only),
                (None, _) => Err(self.wrong("no vectors".into(), wanted.into())),
                _ => {
                    let found = "several columns of vectors".into();
                    Err(self.wrong(found, format!("--vector-column, {}", one_of(names))))
                }
            };
        };
        self.root(name)?;
        let found = candidates.into_iter().find(|found| found.name == name);
        found.ok_or_else(|| self.wrong(format!("other values in column {name:?}"), wanted.into()))
    }

    pub(super) fn key_column(&self, name: &str) -> Result<usize, FileError> {
        self.root(name)?;
        let is_key = |column: &Arc<ColumnDescriptor>| {
            let integers = matches!(column.physical_type(), Physical::INT32 | Physical::INT64);
            let of_what = (column.logical_type_ref(), column.converted_type());
            let plain = match of_what {
                (Some(LogicalType::Integer(_)), _) => true,
                (Some(_), _) => false,
                (None, ConvertedType::NONE) => true,
                (None, _) => integer(column).is_some() || is_signed_integer(column),
            };
            column.path().parts() == [name] && column.max_rep_level() == 0 && integers && plain
        };
        let found = self.leaves().iter().position(is_key);
        let wrong = || self.wrong(format!("other values in column {name:?}"), "integers".into());
        found.ok_or_else(wrong)
    }

    pub(super) fn payload_schema(
        &self,
        columns: &ParquetColumns,
        vector: &str,
    ) -> Result<Option<Type>, FileError> {
        if columns.payload.is_empty() {
            return Ok(None);
        }
        let is_other = |name: &str| name != vector && Some(name) != columns.key.as_deref();
        let fields: Vec<Arc<Type>> = match columns.payload.iter().any(|name| name == "*") {
            true => self.roots().iter().filter(|field| is_other(field.name())).cloned().collect(),
            false => {
                let fields = columns.payload.iter().map(|name| self.root(name).cloned());
                fields.collect::<Result<_, _>>()?
            }
        };
        let root = self.reader.metadata().file_metadata().schema_descr().root_schema();
        let build = || Type::group_type_builder(root.name()).with_fields(fields).build();
        guarded(self.path, format_args!("columns of payloads"), build).map(Some)
    }

    fn wrong(&self, found: String, wanted: String) -> FileError {
        FileError::Content { path: self.path.into(), found, wanted }
    }
}

/// Whether a top-level column is a list of single values: what the format calls a list, of three
/// levels or, as older writers made it, of two; or a value that itself repeats. A map or a struct
/// has lists inside that look the same from below.
fn is_list(root: &Type) -> bool {
    if root.is_primitive() {
        return is_repeated(root);
    }
    let info = root.get_basic_info();
    let is_named = info.logical_type_ref() == Some(&LogicalType::List)
        || info.converted_type() == ConvertedType::LIST;
    let [middle] = root.get_fields() else { return false };
    let holds_values = match middle.is_primitive() {
        true => true,
        false => match middle.get_fields() {
            [value] => value.is_primitive() && !is_repeated(value),
            _ => false,
        },
    };
    is_named && !is_repeated(root) && is_repeated(middle) && holds_values
}

fn is_repeated(field: &Type) -> bool {
    let info = field.get_basic_info();
    info.has_repetition() && info.repetition() == Repetition::REPEATED
}

fn is_signed_integer(column: &ColumnDescriptor) -> bool {
    use ConvertedType::{INT_8, INT_16, INT_32, INT_64};
    [INT_8, INT_16, INT_32, INT_64].contains(&column.converted_type())
}

fn one_of(names: impl IntoIterator<Item = String>) -> String {
    format!("one of {}", names.into_iter().collect::<Vec<_>>().join(", "))
}
