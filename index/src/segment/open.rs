//! A directory -> what preview needs, verified before anything is answered.

use std::path::Path;

use crate::calibrate::Frontier;
use crate::disk::{ArrayKind, Manifest, OpenArray, OpenError, RamArray, blob_file, read_meta};
use crate::extremes::Extremes;
use crate::full_store::OpenOptions;
use crate::graph::entry_points_of;
use crate::graph::stored::StoredGraph;
use crate::key_table::KeyTable;
use crate::preview::Preview;
use crate::quantizer::{Quantizer, QuantizerSpec};
use crate::vocabulary::{Vocabulary, VocabularySpec};

/// What `meta.rkyv` holds.
#[derive(Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(crate) struct Meta {
    /// Entry points are the ids below this.
    pub(crate) entry_points: u32,
    pub(crate) quantizer: QuantizerSpec,
    /// `[count x dim]`: the extreme rows, whose ids come last; they have no code and no neighbors.
    pub(crate) extremes: Vec<f32>,
    pub(crate) frontier: Frontier,
    /// None unless there are token codes.
    pub(crate) vocabulary: Option<VocabularySpec>,
}

/// The resident part of an index.
pub(crate) struct Opened {
    pub(crate) manifest: Manifest,
    pub(crate) frontier: Frontier,
    pub(crate) preview: Preview,
    pub(crate) vocabulary: Option<Vocabulary>,
    pub(crate) keys: KeyTable,
}

/// Reads and verifies manifest, archive, codes, graph and keys; the graph of an output layer, which
/// decodes by a scan, when it is first walked.
pub(crate) fn open(dir: &Path) -> Result<Opened, OpenError> {
    let manifest = Manifest::read(dir)?;
    let meta = read_checked_meta(dir, &manifest)?;
    let quantizer = Quantizer::from_spec(manifest.metric, manifest.element, meta.quantizer);
    if quantizer.is_exact() && !meta.extremes.is_empty() {
        let what = "extreme rows beside codes that hold the rows";
        return Err(OpenError::damaged(&dir.join(blob_file::META), 0, what));
    }
    let all = (manifest.n as u32, manifest.dim as usize);
    let extremes = Extremes::new(manifest.metric, all, meta.extremes);
    let coded = u64::from(extremes.first());
    let codes = read_shaped(dir, &manifest, (ArrayKind::Codes, coded), quantizer.stride())?;
    let extra = match quantizer.extra_stride() {
        0 => RamArray::zeroed(0)?,
        stride => read_shaped(dir, &manifest, (ArrayKind::Extra, coded), stride)?,
    };
    let graph = StoredGraph::open(dir, &manifest, coded)?;
    if meta.vocabulary.is_none() {
        graph.load()?;
    }
    let keys = KeyTable::load(dir, &manifest)?;
    let vocabulary = match meta.vocabulary {
        Some(spec) => Some(load_vocabulary(dir, &manifest, spec)?),
        None => None,
    };
    let entry_points = meta.entry_points;
    let preview = Preview { quantizer, codes, extra, graph, entry_points, extremes };
    Ok(Opened { manifest, frontier: meta.frontier, preview, vocabulary, keys })
}

fn load_vocabulary(
    dir: &Path,
    manifest: &Manifest,
    spec: VocabularySpec,
) -> Result<Vocabulary, OpenError> {
    let records: RamArray<u8> =
        read_shaped(dir, manifest, (ArrayKind::Tokens, manifest.n), spec.stride())?;
    if let Some(id) = Vocabulary::first_unsound(&spec, &records) {
        let at = crate::disk::array_header::HEADER + id * spec.stride();
        let what = format!("token {id} has no finite offset, or a cluster that does not exist");
        let path = dir.join(ArrayKind::Tokens.name());
        return Err(OpenError::damaged(&path, at as u64, what));
    }
    Ok(Vocabulary::arrange(spec, &records)?)
}

/// Reads an array of a kind, which must have so many rows of `stride` bytes each.
fn read_shaped<T: bytemuck::Pod>(
    dir: &Path,
    manifest: &Manifest,
    (kind, rows): (ArrayKind, u64),
    stride: usize,
) -> Result<RamArray<T>, OpenError> {
    let array = OpenArray::open(dir, manifest, kind)?;
    array.check_shape(rows, stride)?;
    array.read_all()
}

/// Reads the archive: its bytes must be a `Meta`, and its numbers must make sense.
fn read_checked_meta(dir: &Path, manifest: &Manifest) -> Result<Meta, OpenError> {
    let blob = read_meta(dir, manifest)?;
    let damaged = |what: String| OpenError::damaged(&dir.join(blob_file::META), 0, what);
    let meta = rkyv::from_bytes::<Meta, rkyv::rancor::Error>(blob.archive())
        .map_err(|error| damaged(format!("no archive of this version: {error}")))?;
    let spec = &meta.quantizer;
    let (dim, extremes) = (manifest.dim as usize, meta.extremes.len());
    if extremes != manifest.extremes as usize * dim {
        let wanted = manifest.extremes;
        let what = format!("extreme rows of {extremes} numbers; wanted {wanted} rows of {dim}");
        return Err(damaged(what));
    }
    let wanted = entry_points_of(manifest.n as u32 - manifest.extremes);
    if meta.entry_points != wanted {
        return Err(damaged(format!("{} entry points; wanted {wanted}", meta.entry_points)));
    }
    if spec.bits != manifest.bits || spec.mean.len() != manifest.dim as usize {
        let found = format!("{} bits of dimension {}", spec.bits, spec.mean.len());
        return Err(damaged(format!("{found}; wanted {} of {}", manifest.bits, manifest.dim)));
    }
    let units = [spec.largest_square, spec.scale_unit, spec.add_unit];
    let lengths =
        [spec.largest_error, spec.largest_residual, spec.error_share, spec.extra_error_share];
    if lengths.iter().chain(&units).any(|x| !(*x >= 0.0 && x.is_finite())) {
        return Err(damaged("a length or a share that is negative, NaN or infinite".into()));
    }
    if !spec.has_sound_axes() {
        return Err(damaged("axes of a shape or length that cannot be".into()));
    }
    if !spec.mean.iter().chain(&meta.extremes).all(|x| x.is_finite()) {
        return Err(damaged("a number that is not finite".into()));
    }
    if !meta.frontier.is_sound() {
        return Err(damaged("a frontier of shares and sizes that cannot be".into()));
    }
    if manifest.tokens != meta.vocabulary.is_some() {
        return Err(damaged("token codes without what they mean, or the other way round".into()));
    }
    if meta.vocabulary.as_ref().is_some_and(|spec| !spec.is_sound(manifest.dim as usize)) {
        return Err(damaged("token codes of shapes and numbers that cannot be".into()));
    }
    Ok(meta)
}

/// The options for the full store, once `resident` bytes of the memory allowed are taken.
pub(crate) fn less(options: &OpenOptions, resident: u64) -> Result<OpenOptions, OpenError> {
    let left = |allowed: u64| {
        allowed.checked_sub(resident).ok_or_else(|| OpenError::Usage {
            what: format!("preview takes {resident} bytes of memory; wanted at most {allowed}"),
        })
    };
    Ok(OpenOptions { memory: options.memory.map(left).transpose()?, ..*options })
}
