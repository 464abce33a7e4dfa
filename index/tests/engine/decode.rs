//! The answer of a decode, against sums over every token in f64.

use std::fs;
use std::os::unix::fs::FileExt;

use foveal_datasets::seeded::Seeded;
use foveal_datasets::{Metric, RowSource, Rows, VectorFile};
use foveal_index::stats::Job;
use foveal_index::{
    BuildInput, DecodeMode, DecodeParams, DecodeRequest, Decoded, IdSet, Keys, LogZMode,
    SearchError, SearchParams, Segment, Token, build,
};
use tempfile::TempDir;

use crate::built::{floats, params, wide, write_rows};

pub const DIM: usize = 24;
const TOKENS: usize = 1500;
const FIRST_KEY: u64 = 100;

/// A vocabulary of skewed norms, and hidden states in few directions about a large mean: what a
/// language model's output layer is like.
pub struct Head {
    pub dir: TempDir,
    tokens: Rows,
    /// Of the kind that the index learned from, but none of those.
    pub hidden: Rows,
    pub index: Segment,
}

pub fn gaussians(count: usize, scale: impl Fn(usize, usize) -> f32, seed: u64) -> Rows {
    let mut random = Seeded::new(seed);
    let numbers = (0..count * DIM).map(|i| scale(i / DIM, i % DIM) * random.gaussian());
    floats(DIM, numbers.collect())
}

fn states(count: usize, seed: u64) -> Rows {
    let spread = gaussians(count, |_, i| 1.2 * 0.8f32.powi(i as i32), seed);
    let mean = |i: usize| if i.is_multiple_of(3) { 0.8 } else { -0.3 };
    let numbers = spread.iter().flat_map(|row| {
        wide(row).into_iter().enumerate().map(|(i, x)| x + mean(i)).collect::<Vec<_>>()
    });
    floats(DIM, numbers.collect())
}

fn head_of(tokens: Rows, learned: bool) -> Head {
    let dir = tempfile::tempdir().unwrap();
    let base = write_rows(dir.path(), "tokens", &tokens);
    let learn = write_rows(dir.path(), "learn", &states(800, 1));
    let index = build_head(&dir, &base, learned.then_some(&learn), "index");
    Head { dir, tokens, hidden: states(60, 2), index }
}

fn build_head(
    dir: &TempDir,
    base: &dyn RowSource,
    learn: Option<&dyn RowSource>,
    name: &str,
) -> Segment {
    let path = dir.path().join(name);
    let keys = Keys::From(FIRST_KEY);
    let input = BuildInput { keys, learn, ..BuildInput::of(base) };
    build(&input, &path, &params(Metric::InnerProduct, 4), Job::default()).unwrap();
    Segment::open(&path).unwrap()
}

pub fn head(learned: bool) -> Head {
    head_of(gaussians(TOKENS, |row, _| 1.0 + (row % 7) as f32 * 0.15, 3), learned)
}

impl Head {
    /// Key and logit of every token, the most likely first.
    fn truth(&self, state: usize) -> Vec<(u64, f64)> {
        let hidden = wide(self.hidden.row(state));
        let logit = |token: &[f32]| -> f64 {
            token.iter().zip(&hidden).map(|(x, h)| f64::from(*x) * f64::from(*h)).sum()
        };
        let tokens = self.tokens.iter().enumerate();
        let mut all: Vec<(u64, f64)> =
            tokens.map(|(i, row)| (FIRST_KEY + i as u64, logit(&wide(row)))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all
    }

    fn decode(&self, state: usize, params: DecodeParams) -> Decoded {
        let request = DecodeRequest { params, ..DecodeRequest::new(1) };
        self.index.decoder().unwrap().decode(self.hidden.row(state), &request).unwrap()
    }
}

fn log_sum_exp(logits: impl Iterator<Item = f64> + Clone, temperature: f64) -> f64 {
    let largest = logits.clone().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.map(|logit| ((logit - largest) / temperature).exp()).sum();
    largest / temperature + sum.ln()
}

fn exact(k: u32) -> DecodeParams {
    DecodeParams { mode: DecodeMode::Exact, log_z: LogZMode::Exact, ..DecodeParams::new(k) }
}

/// The share of the true best tokens that are found.
fn precision(head: &Head, params: DecodeParams) -> f64 {
    let k = params.k as usize;
    let found = |state: usize| {
        let wanted: Vec<u64> = head.truth(state)[..k].iter().map(|(key, _)| *key).collect();
        let tokens = head.decode(state, params).tokens;
        tokens.iter().filter(|token| wanted.contains(&token.key)).count()
    };
    let found: usize = (0..head.hidden.len()).map(found).sum();
    found as f64 / (head.hidden.len() * k) as f64
}

/// The digest of a head, and the answers of some decodes without their times.
pub fn told() -> String {
    let head = head(true);
    let modes = [DecodeMode::Scan, DecodeMode::Graph];
    let decodes = modes.into_iter().flat_map(|mode| {
        let decode = |state| head.decode(state, DecodeParams { mode, ..DecodeParams::new(10) });
        (0..8).map(decode).collect::<Vec<_>>()
    });
    let told = decodes.map(|decoded| {
        let keys: Vec<u64> = decoded.tokens.iter().map(|token| token.key).collect();
        (keys, decoded.log_z, decoded.stats.distances, decoded.stats.reranked)
    });
    format!("{} {:?}", head.index.manifest().digest, told.collect::<Vec<_>>())
}

#[test]
fn the_exact_path_tells_logits_and_probabilities_of_everything() {
    let head = head(false);
    for (state, temperature) in [(0, 1.0), (1, 0.5), (2, 3.0)] {
        let params = DecodeParams { temperature, ..exact(TOKENS as u32) };
        let decoded = head.decode(state, params);
        let truth = head.truth(state);
        let log_z = log_sum_exp(truth.iter().map(|(_, logit)| *logit), temperature);
        assert!((decoded.log_z.unwrap().value - log_z).abs() < 1e-5);
        assert_eq!((decoded.mode, decoded.order_proved), (DecodeMode::Exact, true));
        let sum: f64 = decoded.tokens.iter().map(|token| token.log_prob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-9, "probabilities sum to {sum}");
        for (token, (key, logit)) in decoded.tokens.iter().zip(&truth) {
            assert!((f64::from(token.logit) - logit).abs() < 1e-4, "{token:?} {key} {logit}");
            assert!((token.log_prob - (logit / temperature - log_z)).abs() < 2e-4);
        }
        let keys: Vec<u64> = decoded.tokens.iter().map(|token| token.key).collect();
        assert_eq!(keys[..50], truth[..50].iter().map(|(key, _)| *key).collect::<Vec<_>>());
    }
}

#[test]
fn every_way_finds_the_best_tokens() {
    let (taught, untaught) = (head(true), head(false));
    assert!(taught.index.manifest().tokens && !untaught.index.manifest().tokens);
    for k in [1, 10, 50] {
        let defaults = DecodeParams::new(k);
        let scan = DecodeParams { mode: DecodeMode::Scan, ..defaults };
        let graph = DecodeParams { mode: DecodeMode::Graph, list_size: 600, ..defaults };
        assert!(precision(&taught, defaults) >= 0.97, "k {k}");
        assert!(precision(&taught, scan) >= 0.97, "k {k}");
        // Without log Z only some of the clusters are scanned.
        let some = DecodeParams { log_z: LogZMode::Off, ..scan };
        assert!(precision(&taught, some) >= 0.96, "k {k}");
        let scanned = |state| taught.decode(state, some).stats.distances;
        let scanned: u64 = (0..taught.hidden.len()).map(scanned).sum();
        assert!(scanned * 10 < (taught.hidden.len() * TOKENS * 9) as u64, "k {k}: {scanned}");
        assert!(precision(&untaught, scan) >= 0.97, "k {k}");
        assert!(precision(&taught, graph) >= 0.9, "k {k}");
        assert_eq!(precision(&untaught, DecodeParams { mode: DecodeMode::Exact, ..defaults }), 1.0);
    }
    let more = DecodeParams { rerank_size: Some(400), ..DecodeParams::new(10) };
    assert!(precision(&taught, more) >= 0.99);
}

#[test]
fn a_decoder_forgets_what_it_decoded_before() {
    let head = head(true);
    let some = head.index.id_set(&[FIRST_KEY + 3, FIRST_KEY + 700, FIRST_KEY + 1400]).unwrap();
    let (all, few) = (None, Some(&some));
    let scan = DecodeParams { mode: DecodeMode::Scan, ..DecodeParams::new(3) };
    let off = DecodeParams { log_z: LogZMode::Off, ..scan };
    let graph = DecodeParams { mode: DecodeMode::Graph, ..scan };
    let fresh = |state, request: &DecodeRequest<'_>| {
        head.index.decoder().unwrap().decode(head.hidden.row(state), request).unwrap()
    };
    let mut kept = head.index.decoder().unwrap();
    let requests = [(off, all), (scan, all), (exact(3), all), (off, few), (off, all)];
    let requests = requests.into_iter().chain([(graph, all), (scan, few), (scan, all), (off, all)]);
    for (state, (params, allowed)) in requests.enumerate() {
        let request = DecodeRequest { params, allowed, ..DecodeRequest::new(3) };
        let found = kept.decode(head.hidden.row(state), &request).unwrap();
        let wanted = fresh(state, &request);
        assert_eq!((found.tokens, found.log_z), (wanted.tokens, wanted.log_z), "{params:?}");
        assert_eq!(found.stats.distances, wanted.stats.distances, "{params:?}");
    }
}

#[test]
fn logits_are_exact_whatever_found_them() {
    let head = head(true);
    for mode in [DecodeMode::Scan, DecodeMode::Graph, DecodeMode::Exact] {
        let decoded = head.decode(5, DecodeParams { mode, ..DecodeParams::new(20) });
        assert_eq!(decoded.mode, mode);
        let truth = head.truth(5);
        for token in &decoded.tokens {
            let wanted = truth.iter().find(|(key, _)| *key == token.key).unwrap().1;
            assert!((f64::from(token.logit) - wanted).abs() < 1e-4, "{mode:?} {token:?}");
        }
        assert!(decoded.tokens.is_sorted_by(|a, b| a.logit >= b.logit), "{mode:?}");
    }
}

#[test]
fn intervals_hold_log_z_and_probabilities_are_of_the_whole_vocabulary() {
    let (learned, plain) = (head(true), head(false));
    let all = [&learned, &plain].into_iter().flat_map(|head| [(head, 0.5), (head, 1.0)]);
    for (head, temperature) in all {
        let (mut held, mut widths) = (0, Vec::new());
        let params = DecodeParams { mode: DecodeMode::Scan, ..DecodeParams::new(10) };
        let params = DecodeParams { temperature, ..params };
        for state in 0..head.hidden.len() {
            let logits: Vec<f64> = head.truth(state).iter().map(|(_, logit)| *logit).collect();
            let truth = log_sum_exp(logits.into_iter(), temperature);
            let decoded = head.decode(state, params);
            let log_z = decoded.log_z.unwrap();
            held += usize::from((log_z.low..=log_z.high).contains(&truth));
            widths.push(log_z.high - log_z.low);
            let token = decoded.tokens[0];
            let wanted = f64::from(token.logit) / temperature - log_z.value;
            assert!((token.log_prob - wanted).abs() < 1e-12);
            assert!((log_z.value - truth).abs() < 0.2);
        }
        assert!(held >= 58, "{held} of 60");
        widths.sort_by(f64::total_cmp);
        assert!(widths[30] <= 0.04, "half of the intervals are wider than {}", widths[30]);
    }
}

#[test]
fn without_log_z_probabilities_are_of_the_tokens_found() {
    let head = head(true);
    let decoded = head.decode(0, DecodeParams { log_z: LogZMode::Off, ..DecodeParams::new(10) });
    assert_eq!(decoded.log_z, None);
    let sum: f64 = decoded.tokens.iter().map(|token| token.log_prob.exp()).sum();
    assert!((sum - 1.0).abs() < 1e-12);
    // In the walk alone nothing else is estimated.
    let params =
        DecodeParams { mode: DecodeMode::Graph, log_z: LogZMode::Off, ..DecodeParams::new(5) };
    assert!(head.decode(0, params).stats.distances < TOKENS as u64);
}

#[test]
fn an_order_is_proved_where_every_logit_is_known_and_nowhere_else() {
    let head = head(true);
    for state in 0..20 {
        let truth: Vec<u64> = head.truth(state)[..3].iter().map(|(key, _)| *key).collect();
        for (mode, proved) in
            [(DecodeMode::Exact, true), (DecodeMode::Scan, false), (DecodeMode::Graph, false)]
        {
            let decoded = head.decode(state, DecodeParams { mode, ..DecodeParams::new(3) });
            assert_eq!(decoded.order_proved, proved, "{mode:?}");
            let keys: Vec<u64> = decoded.tokens.iter().map(|token| token.key).collect();
            assert!(!proved || keys == truth, "state {state}");
        }
    }
}

#[test]
fn any_temperature_gives_probabilities() {
    for head in [head(true), head(false)] {
        for temperature in [0.001, 0.05, 30.0, 1000.0] {
            let truth = head.truth(11);
            let log_z = log_sum_exp(truth.iter().map(|(_, logit)| *logit), temperature);
            let mode = DecodeMode::Scan;
            let params = DecodeParams { temperature, mode, ..DecodeParams::new(5) };
            let decoded = head.decode(11, params);
            let found = decoded.log_z.unwrap();
            assert!(found.low <= found.value && found.value <= found.high, "{temperature}");
            assert!((found.value - log_z).abs() < 0.2, "{temperature}: {found:?} {log_z}");
            assert!(decoded.tokens.iter().all(|token| token.log_prob.is_finite()));
            assert_eq!(decoded.tokens[0].key, truth[0].0, "{temperature}");
        }
    }
}

#[test]
fn requested_tokens_are_reported_even_outside_of_the_best() {
    let head = head(true);
    let truth = head.truth(7);
    let requested = [truth[0].0, truth[TOKENS - 1].0, truth[0].0];
    let request = DecodeRequest { requested: &requested, ..DecodeRequest::new(2) };
    let decoded = head.index.decoder().unwrap().decode(head.hidden.row(7), &request).unwrap();
    let keys: Vec<u64> = decoded.requested.iter().map(|token| token.key).collect();
    assert_eq!(keys, requested);
    assert_eq!(decoded.requested[0], decoded.tokens[0]);
    assert!((f64::from(decoded.requested[1].logit) - truth[TOKENS - 1].1).abs() < 1e-4);
    let unknown =
        DecodeRequest { requested: &[FIRST_KEY + TOKENS as u64], ..DecodeRequest::new(2) };
    let error = head.index.decoder().unwrap().decode(head.hidden.row(7), &unknown).unwrap_err();
    assert_eq!(error.to_string(), "no row has the key 1600");
}

#[test]
fn lists_decide_which_tokens_count() {
    let head = head(true);
    let truth = head.truth(9);
    let best: Vec<u64> = truth[..40].iter().map(|(key, _)| *key).collect();
    let one = [truth[700].0];
    // A walk knows no lists: where there is one, codes are scanned instead.
    for mode in [DecodeMode::Scan, DecodeMode::Graph, DecodeMode::Exact] {
        let decode = |allowed: IdSet| {
            let params = DecodeParams { mode, ..DecodeParams::new(10) };
            let request =
                DecodeRequest { params, allowed: Some(&allowed), ..DecodeRequest::new(1) };
            head.index.decoder().unwrap().decode(head.hidden.row(9), &request)
        };
        let denied = decode(head.index.id_set(&best).unwrap().complement()).unwrap();
        assert_eq!(denied.tokens[0].key, truth[40].0);
        let rest = log_sum_exp(truth[40..].iter().map(|(_, logit)| *logit), 1.0);
        let log_z = denied.log_z.unwrap();
        assert!(log_z.low - 0.02 <= rest && rest <= log_z.high + 0.02, "{rest} {log_z:?}");
        let allowed = decode(head.index.id_set(&best).unwrap()).unwrap();
        assert_eq!(allowed.tokens.len(), 10);
        assert!(allowed.tokens.iter().all(|token| best.contains(&token.key)));
        let only = decode(head.index.id_set(&one).unwrap()).unwrap();
        assert_eq!(only.tokens.len(), 1);
        assert_eq!((only.tokens[0].key, only.order_proved), (one[0], true));
        assert!(only.tokens[0].log_prob.abs() < 1e-9, "the only token is certain");
        let none = decode(head.index.id_set(&[3]).unwrap()).unwrap_err();
        assert!(matches!(none, SearchError::NoToken));
    }
}

#[test]
fn a_share_of_the_probability_cuts_the_tokens() {
    let head = head(true);
    let all = head.decode(4, exact(100));
    for top_p in [0.05, 0.3, 0.9] {
        let cut = head.decode(4, DecodeParams { top_p, ..exact(100) });
        let sum = |tokens: &[Token]| tokens.iter().map(|token| token.log_prob.exp()).sum::<f64>();
        let kept = cut.tokens.len();
        assert_eq!(cut.tokens, all.tokens[..kept]);
        assert!(kept == 100 || sum(&cut.tokens) >= top_p);
        assert!(sum(&cut.tokens[..kept - 1]) < top_p);
    }
}

#[test]
fn odd_vocabularies_are_decoded() {
    // Copies, zeros, and logits that exp cannot hold.
    let mut numbers = vec![0.0f32; 300 * DIM];
    for (i, x) in numbers.iter_mut().enumerate() {
        let (row, column) = (i / DIM, i % DIM);
        *x = match row {
            0..100 => 0.0,
            100..200 => 0.25 * (column + 1) as f32,
            _ => ((row * 31 + column * 17) % 23) as f32 * 40.0 - 440.0,
        };
    }
    for learned in [true, false] {
        let head = head_of(floats(DIM, numbers.clone()), learned);
        for mode in [DecodeMode::Scan, DecodeMode::Exact] {
            let decoded = head.decode(0, DecodeParams { mode, ..DecodeParams::new(300) });
            let truth = head.truth(0);
            assert_eq!(decoded.tokens.len(), 300);
            for (token, (_, logit)) in decoded.tokens.iter().zip(&truth) {
                let slack = 1e-5 * logit.abs().max(1.0);
                assert!((f64::from(token.logit) - logit).abs() < slack.max(1e-2));
                assert!(token.log_prob.is_finite() && token.log_prob <= 1e-9);
            }
            let equal = decoded.tokens.windows(2).filter(|pair| pair[0].logit == pair[1].logit);
            assert!(equal.clone().count() > 150 && equal.clone().all(|p| p[0].key < p[1].key));
            let one = head.decode(0, DecodeParams { mode, ..DecodeParams::new(1) });
            assert_eq!(one.tokens[0].logit, decoded.tokens[0].logit);
        }
    }
    let single = head_of(floats(DIM, vec![0.5; DIM]), true);
    let decoded = single.decode(0, DecodeParams::new(10));
    assert_eq!((decoded.tokens.len(), decoded.tokens[0].log_prob), (1, 0.0));
}

/// A decode that scans has no use for the graph. Who walks it finds what is wrong with it, again
/// and again until it is mended, and a scan goes on meanwhile.
#[test]
fn the_graph_of_a_head_is_read_for_its_first_walk() {
    let head = head(true);
    let without = head.index.resident_bytes();
    head.decode(0, DecodeParams::new(5));
    assert_eq!(head.index.resident_bytes(), without);

    let path = head.dir.path().join("index/graph.bin");
    let good = fs::read(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[!good[9000]], 9000).unwrap();
    let walk = DecodeParams { mode: DecodeMode::Graph, ..DecodeParams::new(5) };
    let request = DecodeRequest { params: walk, ..DecodeRequest::new(1) };
    let mut decoder = head.index.decoder().unwrap();
    for _ in 0..2 {
        let told = [
            decoder.decode(head.hidden.row(0), &request).unwrap_err(),
            head.index.searcher().search(head.hidden.row(0), &SearchParams::new(5)).unwrap_err(),
        ];
        for error in told {
            let text = error.to_string();
            assert!(text.contains("graph.bin: damaged at byte 8192: crc32"), "{text}");
        }
        head.decode(0, DecodeParams::new(5));
    }
    file.write_all_at(&good[9000..9001], 9000).unwrap();
    let keys: Vec<u64> = head.truth(0)[..5].iter().map(|(key, _)| *key).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let tokens = head.decode(0, walk).tokens;
                assert_eq!(tokens.iter().map(|token| token.key).collect::<Vec<_>>(), keys);
            });
        }
    });
    let lists = 1500 * 4 * u64::from(head.index.manifest().max_degree);
    assert_eq!(head.index.resident_bytes(), without + lists);
}

#[test]
fn the_same_input_gives_the_same_codes_on_any_number_of_threads() {
    // More tokens than are parted on one thread.
    let head = head_of(gaussians(9_000, |row, _| 1.0 + (row % 7) as f32 * 0.15, 3), true);
    let base = VectorFile::open(head.dir.path().join("tokens.fbin")).unwrap();
    let learn = VectorFile::open(head.dir.path().join("learn.fbin")).unwrap();
    let keys = Keys::From(FIRST_KEY);
    let input = BuildInput { keys, learn: Some(&learn), ..BuildInput::of(&base) };
    for threads in [1, 3] {
        let path = head.dir.path().join(format!("threads-{threads}"));
        let params = foveal_index::BuildParams { threads, ..params(Metric::InnerProduct, 4) };
        let report = build(&input, &path, &params, Job::default()).unwrap();
        assert_eq!(report.manifest.digest, head.index.manifest().digest, "{threads} threads");
    }
}

/// A token that does not count has no probability, whatever its logit; and no token has more than
/// all of it, even one that a walk missed.
#[test]
fn probabilities_of_tokens_asked_for_are_at_most_one() {
    let head = head(true);
    for mode in [DecodeMode::Scan, DecodeMode::Graph, DecodeMode::Exact] {
        for log_z in [LogZMode::Off, LogZMode::Interval] {
            let best = [head.truth(7)[0].0];
            let params = DecodeParams { mode, log_z, list_size: 1, ..DecodeParams::new(1) };
            let others = head.index.id_set(&best).unwrap().complement();
            let mut decoder = head.index.decoder().unwrap();
            let denied = DecodeRequest {
                params,
                allowed: Some(&others),
                requested: &best,
                ..DecodeRequest::new(1)
            };
            let denied = decoder.decode(head.hidden.row(7), &denied).unwrap();
            assert_eq!(denied.requested[0].log_prob, f64::NEG_INFINITY, "{mode:?}");
            let requested = DecodeRequest { params, requested: &best, ..DecodeRequest::new(1) };
            let requested = decoder.decode(head.hidden.row(7), &requested).unwrap();
            assert!(requested.requested[0].log_prob <= 1e-9, "{mode:?} {:?}", requested.requested);
            assert_eq!(requested.tokens[0].key, best[0], "{mode:?}");
        }
    }
}
