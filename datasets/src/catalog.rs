//! Public datasets that results are compared on: their shape, and where they are published.
//!
//! Only a table: nothing here opens a connection. Checksums are given where they are known for
//! sure, which is nowhere yet.

use crate::metric::Metric::{self, Cosine, InnerProduct, L2};
use crate::rows::Element::{self, F32, I8, U8};

macro_rules! ann_benchmarks {
    ($name:literal) => {
        concat!("https://ann-benchmarks.com/", $name, ".hdf5")
    };
}
macro_rules! texmex {
    ($file:literal) => {
        concat!("ftp://ftp.irisa.fr/local/texmex/corpus/", $file)
    };
}
macro_rules! meta {
    ($file:literal) => {
        concat!("https://dl.fbaipublicfiles.com/billion-scale-ann-benchmarks/", $file)
    };
}
macro_rules! yandex {
    ($file:literal) => {
        concat!("https://storage.yandexcloud.net/yandex-research/ann-datasets/", $file)
    };
}
macro_rules! microsoft {
    ($file:literal) => {
        concat!("https://comp21storage.z5.web.core.windows.net/comp21/", $file)
    };
}

/// A public dataset with queries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PublicSet {
    /// The name by which results call it.
    pub name: &'static str,
    /// Rows to be searched. A file that holds more is used up to there.
    pub rows: u64,
    /// Numbers in a row.
    pub dim: u32,
    /// What near means.
    pub metric: Metric,
    /// The type of the published numbers.
    pub element: Element,
    /// How many queries come with it.
    pub queries: u64,
    /// The file or archive that holds the rows.
    pub url: &'static str,
    /// Queries and ground truth, if `url` does not hold them as well. The ground truth has the ibin
    /// layout, whatever its extension.
    pub beside: Option<Beside>,
    /// SHA-256 of the file at `url`, in hexadecimal, where known for sure.
    pub sha256: Option<&'static str>,
}

/// Files that come beside the rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beside {
    /// The queries.
    pub queries: &'static str,
    /// The true neighbours of the queries among the first `rows` rows.
    pub truth: &'static str,
}

/// One file of a dataset, and what to call it so that the parts of a dataset are found together.
#[derive(Clone, Debug, PartialEq)]
pub struct SetFile {
    /// `NAME.hdf5`, `NAME.tar.gz`, `NAME.base.u8bin`, `NAME.query.u8bin` or `NAME.gt.ibin`.
    pub name: String,
    /// Where it is published.
    pub url: &'static str,
    /// SHA-256 of it, where known for sure.
    pub sha256: Option<&'static str>,
    /// The rows to take and the bytes of them and their header, where the published file has more.
    pub first: Option<(u32, u64)>,
}

impl PublicSet {
    /// The files to fetch: one with everything in it, or rows, queries and ground truth.
    pub fn files(&self) -> Vec<SetFile> {
        let file = |part: &str, url: &'static str| SetFile {
            name: format!("{}.{part}", self.name),
            url,
            sha256: None,
            first: None,
        };
        let extension = match extension(self.url) {
            "gz" => "tar.gz",
            other => other,
        };
        let Some(beside) = self.beside else {
            return vec![SetFile { sha256: self.sha256, ..file(extension, self.url) }];
        };
        let bytes = 8 + self.rows * u64::from(self.dim) * self.element.size() as u64;
        // The checksum is one of the file as it is published.
        let first = (self.rows < PUBLISHED_ROWS).then_some((self.rows as u32, bytes));
        let sha256 = self.sha256.filter(|_| first.is_none());
        vec![
            SetFile { sha256, first, ..file(&format!("base.{extension}"), self.url) },
            file(&format!("query.{extension}"), beside.queries),
            file("gt.ibin", beside.truth),
        ]
    }
}

/// Rows in each published big-ann file.
const PUBLISHED_ROWS: u64 = 1_000_000_000;

/// What comes after the last dot.
fn extension(url: &str) -> &str {
    url.rsplit('.').next().unwrap_or_default()
}

/// The dataset of a name.
pub fn named(name: &str) -> Option<&'static PublicSet> {
    SETS.iter().find(|set| set.name == name)
}

/// Every dataset known here: archives with everything in one, then big-ann by size.
pub static SETS: &[PublicSet] = &[
    // hdf5 files with train, test, neighbors and distances; Euclidean distances are not squared.
    // The rows of lastfm-64-dot have a 65th number that turns inner products into angles.
    whole(
        "sift-128-euclidean",
        [1_000_000, 128, 10_000],
        L2,
        ann_benchmarks!("sift-128-euclidean"),
    ),
    whole("gist-960-euclidean", [1_000_000, 960, 1_000], L2, ann_benchmarks!("gist-960-euclidean")),
    whole(
        "fashion-mnist-784-euclidean",
        [60_000, 784, 10_000],
        L2,
        ann_benchmarks!("fashion-mnist-784-euclidean"),
    ),
    whole("mnist-784-euclidean", [60_000, 784, 10_000], L2, ann_benchmarks!("mnist-784-euclidean")),
    whole("glove-25-angular", [1_183_514, 25, 10_000], Cosine, ann_benchmarks!("glove-25-angular")),
    whole("glove-50-angular", [1_183_514, 50, 10_000], Cosine, ann_benchmarks!("glove-50-angular")),
    whole(
        "glove-100-angular",
        [1_183_514, 100, 10_000],
        Cosine,
        ann_benchmarks!("glove-100-angular"),
    ),
    whole(
        "glove-200-angular",
        [1_183_514, 200, 10_000],
        Cosine,
        ann_benchmarks!("glove-200-angular"),
    ),
    whole(
        "deep-image-96-angular",
        [9_990_000, 96, 10_000],
        Cosine,
        ann_benchmarks!("deep-image-96-angular"),
    ),
    whole(
        "nytimes-256-angular",
        [290_000, 256, 10_000],
        Cosine,
        ann_benchmarks!("nytimes-256-angular"),
    ),
    whole("lastfm-64-dot", [292_385, 65, 50_000], Cosine, ann_benchmarks!("lastfm-64-dot")),
    // Archives with fvecs for base, query and learn, and ivecs for the ground truth.
    whole("SIFT1M", [1_000_000, 128, 10_000], L2, texmex!("sift.tar.gz")),
    whole("GIST1M", [1_000_000, 960, 1_000], L2, texmex!("gist.tar.gz")),
    // Header and rows as fbin, u8bin or i8bin. A smaller set is the first rows of the same file.
    BIGANN.first(10_000_000, "bigann-10M", meta!("GT_10M/bigann-10M")),
    BIGANN.first(100_000_000, "bigann-100M", meta!("GT_100M/bigann-100M")),
    BIGANN.first(1_000_000_000, "bigann-1B", meta!("bigann/GT.public.1B.ibin")),
    DEEP.first(10_000_000, "deep-10M", meta!("GT_10M/deep-10M")),
    DEEP.first(100_000_000, "deep-100M", meta!("GT_100M/deep-100M")),
    DEEP.first(1_000_000_000, "deep-1B", yandex!("deep_new_groundtruth.public.10K.bin")),
    MSSPACEV.first(10_000_000, "msspacev-10M", microsoft!("spacev1b/msspacev-gt-10M")),
    MSSPACEV.first(100_000_000, "msspacev-100M", microsoft!("spacev1b/msspacev-gt-100M")),
    MSSPACEV.first(1_000_000_000, "msspacev-1B", microsoft!("spacev1b/public_query_gt100.bin")),
    TEXT2IMAGE.first(10_000_000, "text2image-10M", meta!("GT_10M/text2image-10M")),
    TEXT2IMAGE.first(100_000_000, "text2image-100M", meta!("GT_100M/text2image-100M")),
    TEXT2IMAGE.first(
        1_000_000_000,
        "text2image-1B",
        yandex!("t2i_new_groundtruth.public.100K.bin"),
    ),
    MSTURING.first(10_000_000, "msturing-10M", microsoft!("MSFT-TURING-ANNS/msturing-gt-10M")),
    MSTURING.first(100_000_000, "msturing-100M", microsoft!("MSFT-TURING-ANNS/msturing-gt-100M")),
    MSTURING.first(1_000_000_000, "msturing-1B", microsoft!("MSFT-TURING-ANNS/query_gt100.bin")),
];

const BIGANN: BigAnn = BigAnn {
    dim: 128,
    metric: L2,
    element: U8,
    queries: 10_000,
    url: meta!("bigann/base.1B.u8bin"),
    query_url: meta!("bigann/query.public.10K.u8bin"),
};

const DEEP: BigAnn = BigAnn {
    dim: 96,
    metric: L2,
    element: F32,
    queries: 10_000,
    url: yandex!("DEEP/base.1B.fbin"),
    query_url: yandex!("DEEP/query.public.10K.fbin"),
};

const MSSPACEV: BigAnn = BigAnn {
    dim: 100,
    metric: L2,
    element: I8,
    queries: 29_316,
    url: microsoft!("spacev1b/spacev1b_base.i8bin"),
    query_url: microsoft!("spacev1b/query.i8bin"),
};

const TEXT2IMAGE: BigAnn = BigAnn {
    dim: 200,
    metric: InnerProduct,
    element: F32,
    queries: 100_000,
    url: yandex!("T2I/base.1B.fbin"),
    query_url: yandex!("T2I/query.public.100K.fbin"),
};

const MSTURING: BigAnn = BigAnn {
    dim: 100,
    metric: L2,
    element: F32,
    queries: 100_000,
    url: microsoft!("MSFT-TURING-ANNS/base1b.fbin"),
    query_url: microsoft!("MSFT-TURING-ANNS/query100K.fbin"),
};

/// What the sets of different sizes out of one big-ann file share.
struct BigAnn {
    dim: u32,
    metric: Metric,
    element: Element,
    queries: u64,
    url: &'static str,
    query_url: &'static str,
}

impl BigAnn {
    /// The set of the first `rows` rows.
    const fn first(&self, rows: u64, name: &'static str, truth: &'static str) -> PublicSet {
        PublicSet {
            name,
            rows,
            dim: self.dim,
            metric: self.metric,
            element: self.element,
            queries: self.queries,
            url: self.url,
            beside: Some(Beside { queries: self.query_url, truth }),
            sha256: None,
        }
    }
}

/// A set of f32 in one file, with the counts `[rows, dim, queries]`.
const fn whole(
    name: &'static str,
    [rows, dim, queries]: [u64; 3],
    metric: Metric,
    url: &'static str,
) -> PublicSet {
    let (dim, element) = (dim as u32, F32);
    PublicSet { name, rows, dim, metric, element, queries, url, beside: None, sha256: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::MAX_DIM;
    use std::collections::HashSet;

    #[test]
    fn every_entry_can_be_looked_up_and_used() {
        for set in SETS {
            assert_eq!(named(set.name), Some(set), "{} is named twice", set.name);
            assert!((1..=MAX_DIM as u32).contains(&set.dim), "{}", set.name);
            assert!(set.rows > 0 && set.queries > 0, "{}", set.name);
            assert!(set.sha256.is_none_or(|hex| hex.len() == 64), "{}", set.name);
            let in_one = set.url.ends_with(".hdf5") || set.url.ends_with(".tar.gz");
            assert_eq!(in_one, set.beside.is_none(), "{}", set.name);
        }
        assert_eq!(named("sift"), None);
    }

    #[test]
    fn a_set_is_fetched_under_the_names_that_its_users_look_for() {
        let names = |set| named(set).unwrap().files().into_iter().map(|file| file.name);
        let all = |set| names(set).collect::<Vec<_>>();
        assert_eq!(all("sift-128-euclidean"), ["sift-128-euclidean.hdf5"]);
        assert_eq!(all("SIFT1M"), ["SIFT1M.tar.gz"]);
        let wanted =
            ["base.u8bin", "query.u8bin", "gt.ibin"].map(|part| format!("bigann-10M.{part}"));
        assert_eq!(all("bigann-10M"), wanted);
        let first = |set| named(set).unwrap().files()[0].first;
        assert_eq!(first("bigann-10M"), Some((10_000_000, 8 + 10_000_000 * 128)));
        assert_eq!(first("deep-10M"), Some((10_000_000, 8 + 10_000_000 * 96 * 4)));
        assert_eq!(first("bigann-1B"), None);
    }

    #[test]
    fn sets_of_different_sizes_have_their_own_ground_truth() {
        let truths: Vec<_> = SETS.iter().filter_map(|set| Some(set.beside?.truth)).collect();
        assert_eq!(truths.len(), truths.iter().collect::<HashSet<_>>().len());
    }

    #[test]
    fn the_extension_of_the_rows_agrees_with_their_type() {
        for set in SETS {
            let wanted = match set.url.rsplit('.').next() {
                Some("u8bin") => U8,
                Some("i8bin") => I8,
                _ => F32,
            };
            assert_eq!(set.element, wanted, "{}", set.name);
        }
    }
}
