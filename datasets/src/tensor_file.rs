//! Which tensor of a safetensors file holds rows, and where.
//!
//! ```text
//!  0  bytes of the header, u64
//!  8  the header: JSON, read by the crate `safetensors`
//!     the numbers of each tensor, row-major, where the header says
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;

use crate::error::FileError;
use crate::input_file::InputFile;
use crate::rows::Element;
use crate::stored::{Stored, Wide};

/// The largest header, and the largest index of a model in several files.
const MAX_HEADER: u64 = 100 << 20;

/// Numbers in a file.
pub(crate) struct Tensor {
    pub(crate) stored: Stored,
    pub(crate) shape: Vec<u64>,
    /// Bytes before the first number.
    pub(crate) data_offset: u64,
}

/// The tensor of a name; without one, what there is to choose from is the error.
pub(crate) fn find(input: &InputFile, name: Option<&str>) -> Result<Tensor, FileError> {
    let field = |offset: u64, found: String, wanted: String| FileError::Field {
        path: input.path().into(),
        offset,
        found,
        wanted,
    };
    let length = u64::from_le_bytes(input.head()?);
    if length > MAX_HEADER.min(input.len().saturating_sub(8)) {
        let found = format!("a header of {length} bytes");
        return Err(field(0, found, "one that the file holds, of at most 100 MiB".into()));
    }
    let mut head = vec![0; 8 + length as usize];
    input.read_at(0, &mut head)?;
    // The crate reads whole files; of those that hold a model, the header alone is wanted here.
    let metadata: Metadata = serde_json::from_slice(&head[8..])
        .map_err(|error| field(8, error.to_string(), "a header of safetensors".into()))?;
    let name = chosen(input, name, || metadata.tensors().into_keys().collect())?;
    let Some(info) = metadata.info(name) else {
        let names = one_of(metadata.tensors().into_keys().collect());
        return Err(field(8, format!("no tensor {name:?}"), names));
    };
    let Some(stored) = stored(info.dtype) else {
        let found = format!("tensor {name:?} of {:?}", info.dtype);
        return Err(field(8, found, "floats of 2 to 8 bytes, or integers".into()));
    };
    let (start, end) = info.data_offsets;
    let data_offset = 8 + length + start as u64;
    let product = |bytes: usize, axis: &usize| bytes.checked_mul(*axis);
    if info.shape.iter().try_fold(stored.size(), product) != end.checked_sub(start) {
        let (shape, kind) = (&info.shape, stored.name());
        let found = format!("tensor {name:?} of shape {shape:?} of {kind} in {start}..{end}");
        return Err(field(8, found, "as many bytes as its shape takes".into()));
    }
    if (end as u64).checked_add(8 + length).is_none_or(|end| end > input.len()) {
        let found = format!("tensor {name:?} to byte {end} behind the header");
        return Err(field(8, found, format!("a file longer than {} bytes", input.len())));
    }
    let shape = info.shape.iter().map(|axis| *axis as u64).collect();
    Ok(Tensor { stored, shape, data_offset })
}

/// What the index of a model in several files says.
#[derive(Deserialize)]
struct Index {
    /// The file that holds each tensor.
    weight_map: BTreeMap<String, String>,
}

/// The file that holds the tensor of a name, by the index of a model in several files, which lies
/// beside it.
pub(crate) fn shard(input: &InputFile, name: Option<&str>) -> Result<PathBuf, FileError> {
    let content = |found: String, wanted: String| FileError::Content {
        path: input.path().into(),
        found,
        wanted,
    };
    if input.len() > MAX_HEADER {
        return Err(content(format!("{} bytes", input.len()), "at most 100 MiB".into()));
    }
    let mut text = vec![0; input.len() as usize];
    input.read_at(0, &mut text)?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| {
        content(error.to_string(), "the index of a model: JSON with a weight_map".into())
    })?;
    let name = chosen(input, name, || index.weight_map.keys().cloned().collect())?;
    let Some(file) = index.weight_map.get(name) else {
        let names = one_of(index.weight_map.into_keys().collect());
        return Err(content(format!("no tensor {name:?}"), names));
    };
    // A name alone: an index that was downloaded does not lead out of its directory.
    if file.is_empty() || file == ".." || file.contains(['/', '\0']) {
        let found = format!("tensor {name:?} in the file {file:?}");
        return Err(content(found, "the name of a file beside the index".into()));
    }
    Ok(input.path().with_file_name(file))
}

/// The name given.
fn chosen<'a>(
    input: &InputFile,
    name: Option<&'a str>,
    names: impl Fn() -> Vec<String>,
) -> Result<&'a str, FileError> {
    name.ok_or_else(|| FileError::Request {
        path: input.path().into(),
        found: "holds tensors, and none is named".into(),
        wanted: format!("--tensor NAME, {}", one_of(names())),
    })
}

fn stored(dtype: Dtype) -> Option<Stored> {
    Some(match dtype {
        Dtype::F32 => Stored::As(Element::F32),
        Dtype::F16 => Stored::As(Element::F16),
        Dtype::BF16 => Stored::As(Element::Bf16),
        Dtype::U8 => Stored::As(Element::U8),
        Dtype::I8 => Stored::As(Element::I8),
        Dtype::F64 => Stored::Wide(Wide::F64),
        Dtype::I16 => Stored::Wide(Wide::I16),
        Dtype::U16 => Stored::Wide(Wide::U16),
        Dtype::I32 => Stored::Wide(Wide::I32),
        Dtype::U32 => Stored::Wide(Wide::U32),
        Dtype::I64 => Stored::Wide(Wide::I64),
        Dtype::U64 => Stored::Wide(Wide::U64),
        _ => return None,
    })
}

/// The tensors there are: some of them, if they are many.
fn one_of(mut names: Vec<String>) -> String {
    const SHOWN: usize = 8;
    names.sort_unstable();
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("one of {}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use crate::row_source::RowSource;
    use std::fs;
    use std::path::Path;

    use crate::error::ErrorKind;
    use crate::format::{Format, ReadAs};
    use crate::rows::{Element, Values};
    use crate::vector_file::VectorFile;

    /// A file with a header and `bytes` of numbers.
    fn write(path: &Path, header: &str, bytes: &[u8]) {
        let length = (header.len() as u64).to_le_bytes();
        fs::write(path, [&length, header.as_bytes(), bytes].concat()).unwrap();
    }

    const HEADER: &str = r#"{
        "bias":{"dtype":"F32","shape":[2],"data_offsets":[12,20]},
        "head":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}
    }"#;

    fn open(path: &Path, tensor: &str) -> Result<VectorFile, crate::error::FileError> {
        let tensor = Some(tensor.to_string());
        VectorFile::open_as(path, &ReadAs { tensor, ..ReadAs::default() })
    }

    #[test]
    fn a_tensor_is_found_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let numbers: Vec<half::bf16> = (0..6).map(|i| half::bf16::from_f32(i as f32)).collect();
        let bytes = [bytemuck::cast_slice(&numbers), &[0; 8]].concat();
        write(&path, HEADER, &bytes);
        let file = open(&path, "head").unwrap();
        assert_eq!((file.len(), file.dim(), file.element()), (2, 3, Element::Bf16));
        assert_eq!(file.read(0..2).unwrap().values(), &Values::Bf16(numbers));
        let said = |name: &str| open(&path, name).unwrap_err().to_string();
        assert!(
            said("tail").ends_with("no tensor \"tail\"; wanted one of bias, head"),
            "{}",
            said("tail")
        );
        assert!(said("bias").contains("found 1 axes; wanted 2 axes"), "{}", said("bias"));
        let unnamed = VectorFile::open(&path).unwrap_err();
        assert_eq!(unnamed.kind(), ErrorKind::Usage);
        let wanted = "none is named; wanted --tensor NAME, one of bias, head";
        assert!(unnamed.to_string().ends_with(wanted), "{unnamed}");
    }

    #[test]
    fn a_list_of_numbers_is_a_tensor_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        write(&path, HEADER, bytemuck::cast_slice(&[0.0f32, 0.0, 0.0, 0.5, -2.0]));
        let how = |tensor: &str| ReadAs {
            format: Some(Format::Safetensors),
            tensor: Some(tensor.into()),
            cast: false,
        };
        let numbers = VectorFile::open_numbers(&path, &how("bias")).unwrap();
        assert_eq!((numbers.len(), numbers.dim()), (2, 1));
        assert_eq!(numbers.read(0..2).unwrap().values(), &Values::F32(vec![0.5, -2.0]));
        let refused = VectorFile::open_numbers(&path, &how("head")).unwrap_err().to_string();
        assert!(refused.contains("found shape [2, 3]; wanted one axis"), "{refused}");
    }

    #[test]
    fn the_index_of_a_model_in_several_files_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join("model.safetensors.index.json");
        write(&dir.path().join("model-2-of-2.safetensors"), HEADER, &[0; 20]);
        let map = r#"{"metadata":{"total_size":20},"weight_map":
            {"head":"model-2-of-2.safetensors","tail":"../up.safetensors"}}"#;
        fs::write(&index, map).unwrap();
        let file = open(&index, "head").unwrap();
        assert_eq!((file.len(), file.dim(), file.element()), (2, 3, Element::Bf16));
        let said = |name: &str| open(&index, name).unwrap_err().to_string();
        assert!(said("body").contains("no tensor \"body\"; wanted one of head, tail"));
        assert!(said("tail").contains("wanted the name of a file beside the index"));
        fs::write(&index, "[]").unwrap();
        assert!(said("head").contains("JSON with a weight_map"), "{}", said("head"));
    }

    #[test]
    fn damaged_headers_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let refused = || open(&path, "head").unwrap_err().to_string();
        fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
        assert!(refused().contains("a header of 18446744073709551615 bytes"), "{}", refused());
        write(&path, "{", &[]);
        assert!(refused().contains("wanted a header of safetensors"), "{}", refused());
        write(&path, HEADER, &[0; 10]);
        assert!(refused().contains("head"), "{}", refused());
    }
}
