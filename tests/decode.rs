//! `foveal decode`: a small output layer from file to probabilities, over the command line and over
//! gRPC.

use std::fs;

use foveal_proto::v1 as pb;
use foveal_proto::v1::search_service_client::SearchServiceClient;
use tonic::transport::Channel;

use crate::program::{Place, fields};
use crate::service::Server;
use crate::vectors::{bin, bytes, fbin, ibin, noise, npy};

const TOKENS: usize = 900;
const DIM: usize = 16;
const STATES: usize = 40;

const DECODE_FIELDS: [&str; 28] = [
    "n",
    "dim",
    "bits",
    "queries",
    "k",
    "mode",
    "target_recall",
    "rerank_size",
    "temperature",
    "top_p",
    "threads",
    "io",
    "passes",
    "seconds",
    "p_at_1",
    "p_at_10",
    "p_at_k",
    "qps",
    "latency_us",
    "log_z",
    "perplexity",
    "order_proved",
    "distances_per_query",
    "hops_per_query",
    "reranked_per_query",
    "reads_per_query",
    "resident_bytes_per_vector",
    "full_store_cached_bytes_per_vector",
];

fn tokens() -> Vec<f32> {
    noise(TOKENS * DIM, 31).iter().map(|x| 2.0 * x).collect()
}

fn states(count: usize, seed: u32) -> Vec<f32> {
    let stretched = noise(count * DIM, seed).into_iter().enumerate();
    stretched.map(|(i, x)| 0.4 + x * 3.0 / (1 + i % DIM) as f32).collect()
}

fn biases() -> Vec<f32> {
    noise(TOKENS, 33)
}

/// A place with `head.fbin`, `bias.npy`, `learn.fbin`, `states.fbin`, `next.ibin`, and truth.
fn place() -> Place {
    let place = Place::new();
    place.write("head.fbin", fbin(DIM, &tokens()));
    place.write("bias.npy", npy("<f4", &format!("({TOKENS}, 1)"), &bytes(&biases())));
    place.write("learn.fbin", fbin(DIM, &states(400, 34)));
    place.write("states.fbin", fbin(DIM, &states(STATES, 35)));
    let next: Vec<u8> = (0..STATES as i32).flat_map(|i| (i * 20).to_le_bytes()).collect();
    let distances = vec![0; next.len()];
    place.write("next.ibin", bin(STATES as u32, 1, &[next, distances].concat()));
    place.ok("truth --base head.fbin --queries states.fbin --metric ip --k 50 --out truth.ibin");
    place
}

/// Logits of every token for a state, in f64.
fn logits(state: usize, biased: bool) -> Vec<f64> {
    let (states, biases) = (states(STATES, 35), biases());
    let hidden = &states[state * DIM..(state + 1) * DIM];
    let product = |token: &[f32]| -> f64 {
        token.iter().zip(hidden).map(|(x, h)| f64::from(*x) * f64::from(*h)).sum()
    };
    let products = tokens().chunks(DIM).map(product).collect::<Vec<_>>().into_iter();
    let bias = |i: usize| if biased { f64::from(biases[i]) } else { 0.0 };
    products.enumerate().map(|(i, product)| product + bias(i)).collect()
}

fn log_sum_exp(logits: &[f64]) -> f64 {
    logits.iter().map(|logit| logit.exp()).sum::<f64>().ln()
}

#[test]
fn a_head_tells_its_best_tokens_and_how_sure_it_is() {
    let place = place();
    place.ok("build --base head.fbin --metric ip --learn learn.fbin --out head");
    let line = "decode --index head --hidden states.fbin --k 10 --truth truth.ibin \
                --next next.ibin --threads 1";
    let ran = place.ok(&format!("{line} --format json"));
    assert_eq!(fields(&ran.out), DECODE_FIELDS);
    let report = ran.json();
    assert!(report["p_at_1"].as_f64().unwrap() >= 0.97, "{report}");
    assert!(report["p_at_k"].as_f64().unwrap() >= 0.97, "{report}");
    assert_eq!(report["log_z"]["mode"], "interval");
    assert!(report["log_z"]["covered"].as_f64().unwrap() >= 0.95, "{report}");
    // Full vectors are loaded, unless that is decided otherwise or they do not fit.
    assert_eq!(report["io"], "memory");
    assert_eq!(report["full_store_cached_bytes_per_vector"], 4.0 * DIM as f64);
    let refused = place.run(&format!("{line} --memory 1"));
    let number = |word: &str| word.parse::<u64>().ok();
    let preview = refused.err.split(' ').find_map(number).expect("bytes of preview");
    assert!(refused.code == 2 && refused.err.contains("preview takes"), "{}", refused.err);
    let device = place.json(&format!("{line} --memory {}", preview + 40_000));
    assert!(["uring", "pread"].contains(&device["io"].as_str().unwrap()), "{device}");
    assert_eq!(place.json(&format!("{line} --io pread"))["io"], "pread");
    // Where every logit is known, the interval is a point, and that is the truth.
    let keys: Vec<u8> = (0..40u64).flat_map(u64::to_le_bytes).collect();
    place.write("some.npy", npy("<u8", "(40,)", &keys));
    let without_next = line.replace("--next next.ibin ", "");
    let known = place.json(&format!("{without_next} --allow some.npy"));
    assert_eq!(known["log_z"]["covered"], 1.0, "{known}");
    let mean: f64 = (0..STATES)
        .map(|state| {
            let logits = logits(state, false);
            log_sum_exp(&logits) - logits[state * 20]
        })
        .sum::<f64>()
        / STATES as f64;
    let exact = place.json(&format!("{line} --log-z exact"));
    let perplexity = exact["perplexity"].as_f64().unwrap();
    assert!((perplexity / mean.exp() - 1.0).abs() < 1e-5, "{perplexity} {}", mean.exp());
    assert_eq!((exact["mode"].as_str(), exact["p_at_k"].as_f64()), (Some("exact"), Some(1.0)));
    let estimated = report["perplexity"].as_f64().unwrap();
    assert!((estimated / perplexity - 1.0).abs() < 0.01, "{estimated} {perplexity}");

    let shown = place.ok("decode --index head --hidden states.fbin --k 3 --show 2").out;
    assert!(shown.starts_with("Hidden state 0\n    1  "), "{shown}");
    assert!(shown.contains("states a second") && shown.contains(" %"), "{shown}");
    place.ok("decode --index head --hidden states.fbin --k 7 --ids-out found.ibin --mode exact");
    let found = ibin(&place.path("found.ibin"));
    let truth = ibin(&place.path("truth.ibin"));
    for (found, truth) in found.keys.iter().zip(&truth.keys) {
        assert_eq!(found[..], truth[..7]);
    }
}

#[test]
fn a_bias_moves_logits_and_16_bits_say_what_they_lose() {
    let place = place();
    let ran = place
        .ok("build --base head.fbin --metric ip --bias bias.npy --learn learn.fbin --store bf16 \
         --out head");
    assert!(ran.err.contains("kept as bf16: 900 rows change by"), "{}", ran.err);
    let manifest = place.json("inspect head");
    assert_eq!((manifest["dim"].as_u64(), manifest["element"].as_str()), (Some(17), Some("bf16")));
    place.ok("decode --index head --hidden states.fbin --k 1 --ids-out found.ibin");
    let found = ibin(&place.path("found.ibin"));
    for state in 0..STATES {
        let logits = logits(state, true);
        let best = logits.iter().copied().fold(f64::MIN, f64::max);
        let told = -f64::from(f32::from_bits(found.distances[state][0]));
        assert!((told - best).abs() < 0.05, "state {state}: {told} {best}");
    }
    let line = "build --base head.fbin --metric l2 --out other --bias bias.npy";
    place.refused(line, 2, &["--bias does not go with --metric l2"]);
}

#[test]
fn a_head_comes_out_of_safetensors() {
    let place = place();
    let halves: Vec<u8> =
        tokens().iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect();
    let header = format!(
        r#"{{"lm_head.weight":{{"dtype":"BF16","shape":[{TOKENS},{DIM}],"data_offsets":[0,{}]}}}}"#,
        halves.len()
    );
    let length = (header.len() as u64).to_le_bytes();
    place.write("model.safetensors", [&length[..], header.as_bytes(), &halves].concat());
    let line = "build --base model.safetensors --metric ip --out head";
    place.refused(line, 2, &["wanted --tensor NAME"]);
    let wrong = format!("{line} --tensor head");
    place.refused(&wrong, 65, &["no tensor \"head\"", "wanted one of lm_head.weight"]);
    place.ok(&format!("{line} --tensor lm_head.weight"));
    let line = "decode --index head --hidden states.fbin --k 10 --truth truth.ibin";
    let report = place.json(line);
    assert!(report["p_at_k"].as_f64().unwrap() >= 0.9, "{report}");
}

#[test]
fn lists_and_bad_input() {
    let place = place();
    place.ok("build --base head.fbin --metric ip --out head");
    let keys = [5u64, 6, 7];
    let words: Vec<u8> = keys.iter().flat_map(|key| key.to_le_bytes()).collect();
    place.write("some.npy", npy("<u8", "(3,)", &words));
    place.ok("decode --index head --hidden states.fbin --k 5 --allow some.npy --ids-out a.ibin \
         --log-z exact");
    for keys in ibin(&place.path("a.ibin")).keys {
        let mut first = keys[..3].to_vec();
        first.sort_unstable();
        assert_eq!((first, &keys[3..]), (vec![5, 6, 7], &[-1, -1][..]));
    }
    place.ok("decode --index head --hidden states.fbin --k 5 --deny some.npy --ids-out d.ibin");
    let denied = ibin(&place.path("d.ibin"));
    assert!(denied.keys.iter().flatten().all(|key| !(5..8).contains(key)));

    place.ok("build --base head.fbin --metric l2 --out l2");
    let decode = |rest: &str| format!("decode --hidden states.fbin --k 5 {rest}");
    place.refused(&decode("--index l2"), 2, &["the index has metric l2; wanted ip"]);
    place.refused(&decode("--index head --temperature 0"), 2, &["temperature is 0"]);
    place.refused(&decode("--index head --top-p 0"), 2, &["top_p is 0"]);
    let unknown = place.run(&decode("--index head --mode walk"));
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("auto, scan, graph, exact"), "{}", unknown.err);
    place.write("narrow.fbin", fbin(DIM - 1, &noise(2 * (DIM - 1), 1)));
    let line = "decode --index head --hidden narrow.fbin --k 1";
    place.refused(line, 65, &["narrow.fbin", "dimension 15; wanted 16"]);
    place.write("none.npy", npy("<u8", "(1,)", &u64::MAX.to_le_bytes()));
    place.refused(
        &decode("--index head --allow none.npy"),
        65,
        &["none.npy: 0 of 1 keys are in this index"],
    );
    let short = bin(1, 1, &[0; 8]);
    place.write("short.ibin", short);
    place.refused(&decode("--index head --next short.ibin"), 65, &["holds 1 rows; wanted 40"]);
}

#[tokio::test]
async fn the_server_decodes_as_the_command_line_does() {
    let place = place();
    place.ok("build --base head.fbin --metric ip --learn learn.fbin --out head");
    place.ok("decode --index head --hidden states.fbin --k 6 --ids-out found.ibin");
    let found = ibin(&place.path("found.ibin"));
    let server = Server::start(&place, "serve --listen 127.0.0.1:0 --index head=head", &[]);
    let address = format!("http://{}", server.address);
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    let mut client = SearchServiceClient::new(channel);
    for (state, hidden) in states(STATES, 35).chunks(DIM).enumerate() {
        let values = hidden.to_vec();
        let data = pb::vector::Data::F32(pb::PackedFloat { values });
        let request = pb::DecodeRequest {
            collection: "head".into(),
            hidden: Some(pb::Vector { data: Some(data) }),
            params: Some(pb::DecodeParams { k: Some(6), ..Default::default() }),
            ..Default::default()
        };
        let response = client.decode(request).await.unwrap().into_inner();
        let keys: Vec<i32> = response.tokens.iter().map(|token| token.key as i32).collect();
        assert_eq!(keys, found.keys[state], "state {state}");
        let bits = response.tokens.iter().map(|token| (0.0 - token.logit).to_bits());
        assert_eq!(bits.collect::<Vec<_>>(), found.distances[state]);
    }
    server.stop();
    assert!(fs::metadata(place.path("head/tokens.bin")).is_ok());
}
