//! Which tensor of a safetensors file holds rows, and where.
//!
//! ```text
//!  0  bytes of the header, u64
//!  8  the header: JSON, read by the crate `safetensors`
//!     the numbers of each tensor, row-major, where the header says
//! ```

use safetensors::tensor::{Dtype, Metadata};

use crate::error::FileError;
use crate::input_file::InputFile;
use crate::rows::Element;

/// The largest header.
const MAX_HEADER: u64 = 100 << 20;

/// Rows in a file.
pub(crate) struct Tensor {
    pub(crate) element: Element,
    pub(crate) rows: usize,
    pub(crate) dim: usize,
    /// Bytes before the first row.
    pub(crate) data_offset: u64,
}

/// The tensor of a name: two dimensions, of floats.
pub(crate) fn find(input: &InputFile, name: &str) -> Result<Tensor, FileError> {
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
    let Some(info) = metadata.info(name) else {
        return Err(field(8, format!("no tensor {name:?}"), names(&metadata)));
    };
    let element = match info.dtype {
        Dtype::F32 => Element::F32,
        Dtype::F16 => Element::F16,
        Dtype::BF16 => Element::Bf16,
        other => {
            let found = format!("tensor {name:?} of {other:?}");
            return Err(field(8, found, "F32, F16 or BF16".into()));
        }
    };
    let &[rows, dim] = info.shape.as_slice() else {
        let found = format!("tensor {name:?} of shape {:?}", info.shape);
        return Err(field(8, found, "two dimensions, rows and numbers in a row".into()));
    };
    let (start, end) = info.data_offsets;
    let data_offset = 8 + length + start as u64;
    let bytes = rows.checked_mul(dim).and_then(|numbers| numbers.checked_mul(element.size()));
    if bytes != end.checked_sub(start) {
        let found = format!("tensor {name:?} of {rows} x {dim} {element} in {start}..{end}");
        return Err(field(8, found, "as many bytes as its shape takes".into()));
    }
    if (end as u64).checked_add(8 + length).is_none_or(|end| end > input.len()) {
        let found = format!("tensor {name:?} to byte {end} behind the header");
        return Err(field(8, found, format!("a file longer than {} bytes", input.len())));
    }
    Ok(Tensor { element, rows, dim, data_offset })
}

/// The tensors there are: some of them, if they are many.
fn names(metadata: &Metadata) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<String> = metadata.tensors().into_keys().collect();
    names.sort_unstable();
    let more = if names.len() > SHOWN {
        format!(" and {} more", names.len() - SHOWN)
    } else {
        String::new()
    };
    names.truncate(SHOWN);
    format!("one of {}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

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

    #[test]
    fn a_tensor_is_found_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let numbers: Vec<half::bf16> = (0..6).map(|i| half::bf16::from_f32(i as f32)).collect();
        let bytes = [bytemuck::cast_slice(&numbers), &[0; 8]].concat();
        write(&path, HEADER, &bytes);
        let file = VectorFile::open_tensor(&path, "head").unwrap();
        assert_eq!((file.len(), file.dim(), file.element()), (2, 3, Element::Bf16));
        assert_eq!(file.read(0..2).unwrap().values(), &Values::Bf16(numbers));
        let said = |name: &str| VectorFile::open_tensor(&path, name).unwrap_err().to_string();
        assert!(
            said("tail").ends_with("no tensor \"tail\"; wanted one of bias, head"),
            "{}",
            said("tail")
        );
        assert!(said("bias").contains("of shape [2]; wanted two dimensions"), "{}", said("bias"));
    }

    #[test]
    fn damaged_headers_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let refused = || VectorFile::open_tensor(&path, "head").unwrap_err().to_string();
        fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
        assert!(refused().contains("a header of 18446744073709551615 bytes"), "{}", refused());
        write(&path, "{", &[]);
        assert!(refused().contains("wanted a header of safetensors"), "{}", refused());
        write(&path, HEADER, &[0; 10]);
        assert!(refused().contains("head"), "{}", refused());
    }

    #[test]
    fn rows_are_rounded_and_lengthened_as_they_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        write(
            &path,
            r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#,
            bytemuck::cast_slice(&[1.0f32, 2.0, 3.0, 1.0 + 1.0 / 512.0]),
        );
        let open = || VectorFile::open_tensor(&path, "w").unwrap();
        let rounded = open().rounded_to(Element::Bf16).unwrap();
        let wanted = [1.0, 2.0, 3.0, 1.0].map(half::bf16::from_f32);
        assert_eq!(rounded.read(0..2).unwrap().values(), &Values::Bf16(wanted.into()));
        let longer = open().with_last(vec![7.0, 8.0]).unwrap();
        assert_eq!((longer.dim(), longer.len()), (3, 2));
        let wanted = vec![3.0, 1.0 + 1.0 / 512.0, 8.0];
        assert_eq!(longer.read(1..2).unwrap().values(), &Values::F32(wanted));
        assert_eq!(longer.sample(2, 1).unwrap().1, longer.read(0..2).unwrap());
        let ones = open().with_ones().unwrap();
        assert_eq!(ones.read(0..1).unwrap().values(), &Values::F32(vec![1.0, 2.0, 1.0]));
        assert!(open().with_last(vec![1.0]).is_err() && open().rounded_to(Element::U8).is_err());
    }
}
