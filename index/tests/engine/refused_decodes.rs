//! What a decode, and the build of an output layer, refuse.

use std::fs;
use std::sync::atomic::AtomicBool;

use foveal_datasets::{Metric, RowSource, Rows, VectorFile};
use foveal_index::stats::Job;
use foveal_index::{BuildInput, DecodeParams, DecodeRequest, SearchError, Segment, Stop, build};

use crate::built::{params, write_rows};
use crate::decode::{DIM, gaussians, head};

#[test]
fn hidden_states_that_cannot_be_decoded_are_refused() {
    let head = head(true);
    let mut decoder = head.index.decoder().unwrap();
    let request = DecodeRequest::new(3);
    let mut bad = vec![0.5f32; DIM];
    bad[3] = f32::NAN;
    let error = decoder.decode(&bad, &request).unwrap_err();
    assert!(matches!(error, SearchError::NotFinite { position: 3, .. }), "{error}");
    let error = decoder.decode(&bad[..DIM - 1], &request).unwrap_err();
    assert!(matches!(error, SearchError::Dim { found: 23, wanted: 24 }), "{error}");
    let stopped = AtomicBool::new(true);
    let stop = Stop { cancelled: Some(&stopped), ..Stop::default() };
    let error = decoder.decode(head.hidden.row(0), &DecodeRequest { stop, ..request }).unwrap_err();
    assert!(matches!(error, SearchError::Stopped(_)), "{error}");
    for params in [
        DecodeParams { k: 0, ..DecodeParams::new(1) },
        DecodeParams { temperature: 0.0, ..DecodeParams::new(1) },
        DecodeParams { temperature: f64::NAN, ..DecodeParams::new(1) },
        DecodeParams { top_p: 0.0, ..DecodeParams::new(1) },
        DecodeParams { precision: 1.0, ..DecodeParams::new(1) },
        DecodeParams { rerank_size: Some(2), ..DecodeParams::new(3) },
    ] {
        let request = DecodeRequest { params, ..DecodeRequest::new(1) };
        assert!(decoder.decode(head.hidden.row(0), &request).is_err(), "{params:?}");
    }
    let base = VectorFile::open(head.dir.path().join("tokens.fbin")).unwrap();
    let path = head.dir.path().join("l2");
    build(&BuildInput::of(&base), &path, &params(Metric::L2, 4), Job::default()).unwrap();
    let error = Segment::open(&path).unwrap().decoder().err().unwrap();
    assert_eq!(error.to_string(), "the index has metric l2; wanted ip, whose distances are logits");
}

/// Numbers at the end of f32 end a build before its index is written, with the file, and the row
/// where there is one.
#[test]
fn states_that_cannot_be_learned_from_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = |scale: f32| gaussians(200, |_, _| scale, 3);
    let attempt = |tokens: &Rows, states: &Rows| {
        let base = write_rows(dir.path(), "base", tokens);
        let learn = write_rows(dir.path(), "learn", states);
        let input = BuildInput { learn: Some(&learn), ..BuildInput::of(&base) };
        let path = dir.path().join("index");
        let built = build(&input, &path, &params(Metric::InnerProduct, 4), Job::default());
        let is_there = path.exists();
        let _ = fs::remove_dir_all(&path);
        let _ = fs::remove_file(base.path());
        let _ = fs::remove_file(learn.path());
        assert_eq!(built.is_ok(), is_there);
        built.map(|_| ()).map_err(|error| error.to_string())
    };
    let long = gaussians(100, |row, _| if row == 77 { 1e19 } else { 1.0 }, 4);
    let error = attempt(&tokens(1.0), &long).unwrap_err();
    assert!(error.contains("learn") && error.contains("row 77 is too long"), "{error}");
    let error = attempt(&tokens(5e17), &gaussians(100, |_, _| 5e17, 4)).unwrap_err();
    assert!(error.contains("so long that their products"), "{error}");
    for (tokens, states) in [(tokens(1.0), 1e17), (tokens(1e17), 1.0), (tokens(1e-18), 1e-18)] {
        attempt(&tokens, &gaussians(100, |_, _| states, 4)).unwrap();
    }
}
