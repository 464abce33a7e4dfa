//! Damaged and crafted indexes: found, named, and never a wrong answer.

use std::fs;

use foveal_index::Manifest;
use xxhash_rust::xxh3::xxh3_128;

use crate::program::{Place, names_in};
use crate::vectors::{fbin, ibin, noise};

/// So few that a search scans them.
const ROWS: usize = 60;
/// So many that a search walks the graph.
const MORE_ROWS: usize = 600;
const DIM: usize = 8;

/// A place with `base.fbin`, `index` over it with payloads, and the bytes of the index's files.
struct Sound {
    place: Place,
    files: Vec<(String, Vec<u8>)>,
}

impl Sound {
    fn new() -> Sound {
        Sound::built(ROWS, "--metric l2")
    }

    fn built(rows: usize, flags: &str) -> Sound {
        let place = Place::new();
        place.write("base.fbin", fbin(DIM, &noise(rows * DIM, 6)));
        let lines: String = (0..rows).map(|row| format!("{{\"name\": \"row {row}\"}}\n")).collect();
        place.write("rows.jsonl", lines);
        place.ok(&format!("build --base base.fbin {flags} --out index --payload rows.jsonl"));
        let read =
            |name: String| (name.clone(), fs::read(place.path("index").join(&name)).unwrap());
        let files = names_in(&place.path("index")).into_iter().map(read).collect();
        Sound { place, files }
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        self.place.write(&format!("index/{name}"), bytes);
    }

    fn file(&self, name: &str) -> Vec<u8> {
        self.files.iter().find(|(other, _)| other == name).expect("a file of the index").1.clone()
    }

    /// `check --deep` finds damage in `name`, or refuses the index with 65 and names it.
    #[track_caller]
    fn is_found(&self, name: &str, what: &str) -> String {
        let ran = self.place.run("check index --deep");
        assert!(ran.code == 1 || ran.code == 65, "{name} {what}: {} {}", ran.code, ran.err);
        let text = ran.out + &ran.err;
        let named = text.lines().find(|line| line.contains(&format!("index/{name}:")));
        let Some(line) = named else { panic!("{name} {what}: is not named: {text}") };
        assert!(!text.contains("panicked"), "{text}");
        line.to_string()
    }

    /// A search that needs `name` refuses with 65, names it, and writes no answer.
    #[track_caller]
    fn is_refused(&self, name: &str, what: &str) {
        let line = "search --index index --queries base.fbin --k 5 --show 1 --threads 1 \
                    --ids-out found.ibin";
        let ran = self.place.run(line);
        assert_eq!(ran.code, 65, "{name} {what}: {}", ran.err);
        assert!(ran.err.contains(&format!("index/{name}")), "{name} {what}: {}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{name} {what}: {}", ran.err);
        assert!(!self.place.path("found.ibin").exists(), "{name} {what}: an answer was written");
    }

    /// Writes `bytes` as `name` with its block checksums, and a manifest that vouches for them.
    fn craft(&self, name: &str, bytes: &[u8]) {
        let crc_name = format!("{name}.crc");
        let mut crc = self.file(&crc_name)[..64].to_vec();
        for block in bytes.chunks(4096) {
            crc.extend(crc32fast::hash(block).to_le_bytes());
        }
        self.put(name, bytes);
        self.put(&crc_name, &crc);
        let mut manifest: Manifest = serde_json::from_slice(&self.file("manifest.json")).unwrap();
        for (name, bytes) in [(name, bytes), (crc_name.as_str(), &crc)] {
            let entry = manifest.files.iter_mut().find(|entry| entry.name == name).unwrap();
            entry.bytes = bytes.len() as u64;
            entry.xxh3 = format!("{:032x}", xxh3_128(bytes));
        }
        let text = serde_json::to_string_pretty(&manifest.seal().unwrap()).unwrap();
        self.put("manifest.json", format!("{text}\n").as_bytes());
    }
}

#[test]
fn a_flipped_byte_in_any_file() {
    let sound = Sound::new();
    for (name, good) in &sound.files {
        let last = good.len() - 1;
        for at in [0, 8, 30, 60, 64, 70, last / 2, last] {
            let mut bad = good.clone();
            bad[at.min(last)] ^= 0x10;
            sound.put(name, &bad);
            let line = sound.is_found(name, &format!("flipped at {at}"));
            // A version is judged before anything else, and has its own words.
            assert!(line.contains("at byte") || line.contains("format version"), "{line}");
        }
        if name != "measured.json" {
            sound.is_refused(name, "flipped at its end");
        }
        sound.put(name, good);
    }
    assert_eq!(sound.place.json("check index --deep")["ok"], true);
}

#[test]
fn a_file_that_was_cut_or_grew() {
    let sound = Sound::new();
    for (name, good) in &sound.files {
        for length in [0, 1, 63, good.len() / 2, good.len() - 1, good.len() + 1, good.len() + 4096]
        {
            let mut bad = good.clone();
            bad.resize(length, 0);
            sound.put(name, &bad);
            sound.is_found(name, &format!("of {length} bytes"));
            if name != "measured.json" {
                sound.is_refused(name, &format!("of {length} bytes"));
            }
        }
        sound.put(name, good);
    }
}

#[test]
fn a_file_that_is_missing_or_does_not_belong() {
    let sound = Sound::new();
    for (name, good) in &sound.files {
        fs::remove_file(sound.place.path("index").join(name)).unwrap();
        match name.as_str() {
            "measured.json" => assert_eq!(sound.place.json("check index --deep")["ok"], true),
            "manifest.json" => {
                sound.place.refused("check index", 65, &["index: no manifest.json"]);
            }
            _ => {
                sound.is_found(name, "missing");
                sound.is_refused(name, "missing");
            }
        }
        sound.put(name, good);
    }
    sound.put("stranger", b"");
    sound.is_found("stranger", "added");
}

#[test]
fn an_index_of_a_future_version() {
    let sound = Sound::new();
    let text = String::from_utf8(sound.file("manifest.json")).unwrap();
    let future = text.replace("\"format_version\": 8,", "\"format_version\": 9,\n  \"new\": {},");
    assert_ne!(text, future);
    sound.put("manifest.json", future.as_bytes());
    let wanted = ["index/manifest.json: format version 9; wanted 8"];
    for line in [
        "check index",
        "check index --deep",
        "inspect index",
        "search --index index --queries base.fbin --k 1",
        "serve --listen 127.0.0.1:0 --index a=index",
    ] {
        let ran = sound.place.run(line);
        assert_eq!(ran.code, 65, "foveal {line}: {}", ran.err);
        assert!(ran.err.contains(wanted[0]), "foveal {line}: {}", ran.err);
    }
}

#[test]
fn an_index_crafted_with_right_checksums() {
    let sound = Sound::new();
    // The crafting itself is sound: nothing changed, nothing found.
    let graph = sound.file("graph.bin");
    sound.craft("graph.bin", &graph);
    assert_eq!(sound.place.json("check index --deep")["ok"], true);

    // A neighbor that does not exist.
    for id in [ROWS as u32, u32::MAX - 1, 1 << 31] {
        let mut bad = graph.clone();
        bad[64 + 4 * 33..][..4].copy_from_slice(&id.to_le_bytes());
        sound.craft("graph.bin", &bad);
        let line = sound.is_found("graph.bin", "with a stranger");
        assert!(line.contains(&format!("damaged at byte 196: neighbor id {id}")), "{line}");
        sound.is_refused("graph.bin", "with a stranger");
    }

    // No neighbors at all: a sound file. 60 rows are all entry points, so a check finds nothing to
    // object to.
    let mut lonely = graph.clone();
    lonely[64..].fill(0xff);
    sound.craft("graph.bin", &lonely);
    let checked = sound.place.json("check index --deep");
    assert_eq!(checked["reachable"].as_u64(), Some(ROWS as u64));
    sound.craft("graph.bin", &graph);

    // Two rows of one key.
    let keys = sound.file("keys.bin");
    let mut twice = keys.clone();
    twice.copy_within(64..68, 68);
    sound.craft("keys.bin", &twice);
    sound.is_found("key_order.bin", "with a key twice");
    sound.craft("keys.bin", &keys);

    // Keys out of order: found by a check, and by the first look-up.
    let order = sound.file("key_order.bin");
    let mut swapped = order.clone();
    swapped[64..72].rotate_left(4);
    sound.craft("key_order.bin", &swapped);
    sound.is_found("key_order.bin", "out of order");
    let look_up = "get --index index --key 10";
    sound.place.refused(look_up, 65, &["key_order.bin: damaged at byte 68: key 0; wanted one"]);
    sound.craft("key_order.bin", &order);
    sound.place.ok(look_up);

    // A full vector that no build would store: no panic, whatever the answer.
    let mut vectors = sound.file("vectors.bin");
    vectors[4096..4100].copy_from_slice(&f32::NAN.to_le_bytes());
    sound.craft("vectors.bin", &vectors);
    let ran = sound.place.run("search --index index --queries base.fbin --k 60 --threads 1");
    assert!([0, 65].contains(&ran.code) && !ran.err.contains("panicked"), "{}", ran.err);
}

/// Opening leaves the graph of a head where it is: what is wrong with it is found by a check, and
/// by who walks it.
#[test]
fn a_head_with_a_crafted_graph() {
    let sound = Sound::built(MORE_ROWS, "--metric ip --learn base.fbin");
    let mut bad = sound.file("graph.bin");
    bad[64..68].copy_from_slice(&(MORE_ROWS as u32).to_le_bytes());
    sound.craft("graph.bin", &bad);
    let what = "damaged at byte 64: neighbor id 600";
    let line = sound.is_found("graph.bin", "with a stranger");
    assert!(line.contains(what), "{line}");
    let ran = sound.place.run("check index");
    assert!(ran.code == 1 && (ran.out + &ran.err).contains(what));
    sound.is_refused("graph.bin", "with a stranger");
    let decode = "decode --index index --hidden base.fbin --k 5 --threads 1 --show 1";
    let ran = sound.place.run(&format!("{decode} --mode graph"));
    assert!(ran.code == 65 && ran.err.contains(what), "{} {}", ran.code, ran.err);
    sound.place.ok(&format!("{decode} --mode scan"));
}

#[test]
fn rows_that_no_walk_reaches_are_counted() {
    let sound = Sound::built(MORE_ROWS, "--metric l2");
    // How many rows each search finds.
    let found = |out: &str| {
        let search = "search --index index --queries base.fbin --k 400 --threads 1 --ids-out";
        let ran = sound.place.json(&format!("{search} {out}"));
        assert!(ran["hops_per_query"].as_f64().unwrap() > 0.0, "{ran}");
        let lists = ibin(&sound.place.path(out)).keys.into_iter();
        lists.map(|keys| keys.iter().filter(|key| **key >= 0).count()).collect::<Vec<usize>>()
    };
    assert_eq!(found("sound.ibin"), [400; MORE_ROWS]);
    let mut lonely = sound.file("graph.bin");
    lonely[64..].fill(0xff);
    sound.craft("graph.bin", &lonely);
    let ran = sound.place.run("check index --deep --format json");
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert_eq!(ran.json()["reachable"].as_u64(), Some(256), "{}", ran.out);
    assert!(ran.json()["damage"][0].as_str().unwrap().contains("wanted 600"), "{}", ran.out);
    // A search goes where the graph leads: from the entry points to nowhere.
    assert_eq!(found("lonely.ibin"), [256; MORE_ROWS]);
}

/// Full vectors are mapped by default, and verified when they are first touched.
#[test]
fn full_vectors_that_change_while_they_are_searched() {
    let sound = Sound::new();
    let good = sound.file("vectors.bin");
    let mut other = good.clone();
    other[4096..].fill(1);
    for (what, length, overwritten) in
        [("cut", 4096, false), ("cut within a page", 5000, false), ("overwritten", 8192, true)]
    {
        sound.put("vectors.bin", &good);
        let line = "search --index index --queries base.fbin --k 5 --threads 1 --ids-out no.ibin";
        let running = sound.place.start(line);
        std::thread::sleep(std::time::Duration::from_millis(300));
        let path = sound.place.path("index/vectors.bin");
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        match overwritten {
            true => std::os::unix::fs::FileExt::write_all_at(&file, &other, 0).unwrap(),
            false => file.set_len(length).unwrap(),
        }
        let ran = running.end();
        assert_eq!(ran.code, 65, "{what}: {} {}", ran.out, ran.err);
        assert!(ran.err.contains("index/vectors.bin: damaged"), "{what}: {}", ran.err);
        assert!(!sound.place.path("no.ibin").exists(), "{what}");
    }
}
