//! Inputs of every kind and name, and the surroundings that a run may meet: pipes, limits of the
//! system, changed files. What cannot work is said before the work, and leaves nothing behind.

use std::fs;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::Signal;

use crate::program::{Place, Ran, ran};
use crate::vectors::{bin, bytes, fbin, ibin, noise, npy};

/// A place with `base.fbin`, 300 rows of 8 numbers, and `index` over it.
fn place() -> Place {
    let place = Place::new();
    place.write("base.fbin", fbin(8, &noise(300 * 8, 1)));
    place.ok("build --base base.fbin --metric l2 --out index");
    place
}

/// The files of an index, to be compared with those of another.
#[track_caller]
fn digest(place: &Place, index: &str) -> String {
    place.json(&format!("inspect {index}"))["digest"].as_str().unwrap().into()
}

/// Runs `foveal LINE` in a shell, behind `limits`.
fn limited(place: &Place, limits: &str, line: &str) -> Ran {
    let foveal = place.command(line);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("{limits}; exec \"$@\""), "sh"]);
    command.arg(foveal.get_program()).args(foveal.get_args()).current_dir(place.path(""));
    ran(line, command.output().unwrap())
}

#[test]
fn rows_of_other_numeric_types_become_f32() {
    let place = place();
    let numbers = noise(300 * 8, 1);
    let doubles: Vec<u8> = numbers.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
    place.write("doubles.npy", npy("<f8", "(300, 8)", &doubles));
    place.ok("build --base doubles.npy --metric l2 --out doubles");
    assert_eq!(digest(&place, "doubles"), digest(&place, "index"));
    // Numbers that f32 does not hold: refused with the remedy, and rounded where it is asked for.
    let thirds: Vec<u8> = (1..=2400).flat_map(|x| (f64::from(x) / 3.0).to_le_bytes()).collect();
    place.write("thirds.npy", npy("<f8", "(300, 8)", &thirds));
    let found = ["thirds.npy: row 0, column 0: found 0.3333333333333333, of type f64", "--cast"];
    place.refused("build --base thirds.npy --metric l2 --out no", 65, &found);
    place.refused("search --index index --queries thirds.npy --k 1", 65, &found);
    place.ok("build --base thirds.npy --metric l2 --out cast --cast");
    place.ok("convert --in thirds.npy --out thirds.fbin");
    place.ok("build --base thirds.fbin --metric l2 --out converted");
    assert_eq!(digest(&place, "cast"), digest(&place, "converted"));
    let words: Vec<u8> = (0..2400_i64).flat_map(i64::to_le_bytes).collect();
    place.write("words.npy", npy("<i8", "(300, 8)", &words));
    place.ok("truth --base words.npy --queries words.npy --metric l2 --k 1 --out words.ibin");
    let keys: Vec<i32> = ibin(&place.path("words.ibin")).keys.concat();
    assert_eq!(keys, (0..300).collect::<Vec<i32>>());
}

#[test]
fn keys_may_be_integers_of_any_width() {
    let place = place();
    let keys: Vec<u8> = (500..800_i32).flat_map(i32::to_le_bytes).collect();
    place.write("keys.npy", npy("<i4", "(300,)", &keys));
    place.ok("build --base base.fbin --metric l2 --out keyed --keys keys.npy");
    place.ok("build --base base.fbin --metric l2 --out first --first-key 500");
    assert_eq!(digest(&place, "keyed"), digest(&place, "first"));
    place.write("floats.npy", npy("<f4", "(300,)", &[0; 1200]));
    let wanted = ["floats.npy", "keys of f32; wanted integers"];
    place.refused("build --base base.fbin --metric l2 --out no --keys floats.npy", 65, &wanted);
}

#[test]
fn files_whose_names_say_nothing_are_read_as_told() {
    let place = place();
    let copy = |from: &str, to: &str| fs::copy(place.path(from), place.path(to)).unwrap();
    copy("base.fbin", "base.fbin.crop_nb_300");
    let truth = "truth --base base.fbin.crop_nb_300 --queries base.fbin.crop_nb_300 --metric l2 \
                 --k 3 --out truth.ibin";
    place.refused(truth, 2, &["crop_nb_300", "--base-format fbin"]);
    place.ok(&format!("{truth} --base-format fbin --queries-format fbin"));
    copy("truth.ibin", "gt100.bin");
    let search = "search --index index --queries base.fbin.crop_nb_300 --queries-format fbin --k 3 \
                  --truth gt100.bin --min-recall 0.9";
    place.ok(&format!("{search} --truth-format ibin"));
    place.ok("build --base base.fbin.crop_nb_300 --base-format fbin --metric l2 --out named \
         --learn base.fbin.crop_nb_300 --learn-format fbin");
    place.ok("convert --in gt100.bin --in-format ibin --out gt100.ivecs");
    // Standard input is a file where a shell makes it one.
    let line = "build --base /dev/stdin --base-format fbin --metric l2 --out stdin";
    let ran = limited(&place, "exec < base.fbin", line);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(digest(&place, "stdin"), digest(&place, "index"));
    let line = line.replace("--out stdin", "--out no");
    limited(&place, "exec < /dev/null", &line).is_refusal(66, &["is a device"]);
}

/// A safetensors file of one tensor of f32.
fn tensor(name: &str, shape: &str, numbers: &[f32]) -> Vec<u8> {
    let end = numbers.len() * 4;
    let header =
        format!(r#"{{"{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}"#);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes(numbers)].concat()
}

#[test]
fn tensors_are_read_by_every_verb() {
    let place = place();
    let (rows, biases) = (noise(300 * 8, 1), noise(300, 2));
    place.write("head.safetensors", tensor("lm_head.weight", "[300,8]", &rows));
    place.write("bias.safetensors", tensor("lm_head.bias", "[300]", &biases));
    place.write("bias.npy", npy("<f4", "(300,)", &bytes(&biases)));
    place.write("bias.fbin", fbin(1, &biases));
    let map = r#"{"weight_map":{"lm_head.weight":"head.safetensors"}}"#;
    place.write("model.safetensors.index.json", map);
    place.ok("convert --in head.safetensors --tensor lm_head.weight --out rows.fbin");
    assert_eq!(fs::read(place.path("rows.fbin")).unwrap(), fbin(8, &rows));
    for base in ["head.safetensors", "model.safetensors.index.json"] {
        let out = format!("{base}.ibin");
        place.ok(&format!(
            "truth --base {base} --tensor lm_head.weight --queries {base} \
             --queries-tensor lm_head.weight --metric l2 --k 1 --out {out}"
        ));
        let keys: Vec<i32> = ibin(&place.path(&out)).keys.concat();
        assert_eq!(keys, (0..300).collect::<Vec<i32>>(), "{base}");
    }
    let unnamed = ["head.safetensors", "none is named", "--tensor", "lm_head.weight"];
    place.refused("build --base head.safetensors --metric ip --out no", 2, &unnamed);
    let build = "build --base head.safetensors --tensor lm_head.weight --metric ip";
    place.ok(&format!("{build} --bias bias.fbin --out column"));
    place.ok(&format!("{build} --bias bias.npy --out list"));
    place.ok(&format!("{build} --bias bias.safetensors --bias-tensor lm_head.bias --out tensor"));
    assert_eq!(digest(&place, "list"), digest(&place, "column"));
    assert_eq!(digest(&place, "tensor"), digest(&place, "column"));
    place.write("short.npy", npy("<f4", "(299,)", &bytes(&biases[1..])));
    let wanted = ["short.npy: holds 299 numbers; wanted 300"];
    place.refused(&format!("{build} --bias short.npy --out no"), 65, &wanted);
}

#[test]
fn pipes_are_refused_and_nothing_waits_for_them() {
    let place = place();
    for name in ["pipe.fbin", "pipe.jsonl", "pipe.npy", "pipe.ibin", "pipe.toml"] {
        mkfifoat(CWD, place.path(name), Mode::RUSR | Mode::WUSR).unwrap();
    }
    let build = "build --base base.fbin --metric ip --out no";
    for line in [
        "build --base pipe.fbin --metric l2 --out no",
        "convert --in pipe.fbin --out no.npy",
        "truth --base pipe.fbin --queries base.fbin --metric l2 --k 1 --out no.ibin",
        "truth --base base.fbin --queries pipe.fbin --metric l2 --k 1 --out no.ibin",
        "search --index index --queries pipe.fbin --k 1",
        "search --index index --queries base.fbin --k 1 --truth pipe.ibin",
        "serve --config pipe.toml",
        &format!("{build} --payload pipe.jsonl"),
        &format!("{build} --keys pipe.npy"),
        &format!("{build} --learn pipe.fbin"),
        &format!("{build} --bias pipe.fbin"),
    ] {
        place.refused(line, 66, &["is a pipe; wanted a regular file"]);
    }
}

#[test]
fn a_pipe_in_an_index_is_damage() {
    for name in ["manifest.json", "measured.json", "meta.rkyv", "vectors.bin", "graph.bin.crc"] {
        let place = place();
        let path = place.path("index").join(name);
        fs::remove_file(&path).unwrap();
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        let check = place.run("check index");
        assert_eq!(check.code, 1, "{name}: {}", check.err);
        assert!(check.out.contains(&format!("{name}: damaged")), "{name}: {}", check.out);
        let inspect = place.run("inspect index");
        assert!([0, 65].contains(&inspect.code), "{name}: {}", inspect.err);
        let search = "search --index index --queries base.fbin --k 1";
        match name {
            "measured.json" => drop(place.ok(search)),
            _ => place.refused(search, 65, &[name]),
        }
    }
}

#[test]
fn outputs_that_cannot_be_made_are_refused_before_the_work() {
    let place = place();
    // Inputs that are not there: whoever reads them first is too late.
    let truth = "truth --base gone.fbin --queries gone.fbin --metric l2 --k 1";
    place.refused(&format!("{truth} --out t.bin"), 2, &["t.bin", "wanted ibin, ivecs"]);
    place.refused(&format!("{truth} --out no/t.ibin"), 73, &["no: no such directory"]);
    place.refused(&format!("{truth} --out base.fbin/t.ibin"), 73, &["t.ibin: cannot be created"]);
    place.refused(&format!("{truth} --out t.ibin --threads 20000"), 2, &["threads is 20000"]);
    place.refused("build --base gone.fbin --metric l2 --out no/x", 73, &["no: no such directory"]);
    place.refused("convert --in gone.fbin --out no/x.npy", 73, &["no: no such directory"]);
    let search = "search --index gone --queries gone.fbin --k 1";
    place.refused(&format!("{search} --ids-out t.bin"), 2, &["t.bin", "wanted ibin, ivecs"]);
    place.refused(&format!("{search} --ids-out no/t.ibin"), 73, &["no: no such directory"]);
    let decode = "decode --index gone --hidden gone.fbin --k 1";
    place.refused(&format!("{decode} --ids-out no/t.ibin"), 73, &["no: no such directory"]);
    place.write("short.fbin", fbin(3, &noise(30, 1)));
    let learn = "build --base base.fbin --metric l2 --bits 2 --learn short.fbin --out no";
    place.refused(learn, 65, &["short.fbin: holds rows of dimension 3; wanted 8"]);
}

#[test]
fn limits_of_the_system_are_no_damage_and_leave_nothing() {
    let place = place();
    let before = place.names();
    let mut refused = 0;
    for count in 4..12 {
        let limit = format!("ulimit -n {count}");
        for line in [
            "check index",
            "check index --deep",
            "inspect index",
            "build --base base.fbin --metric l2 --out new",
            "convert --in base.fbin --out new.npy",
            "truth --base base.fbin --queries base.fbin --metric l2 --k 1 --out new.ibin",
        ] {
            let ran = limited(&place, &limit, line);
            if ran.code == 0 {
                let _ = fs::remove_dir_all(place.path("new"));
                let _ = fs::remove_file(place.path("new.npy"));
                let _ = fs::remove_file(place.path("new.ibin"));
            } else {
                refused += 1;
                ran.is_refusal(74, &[]);
            }
            assert_eq!(place.names(), before, "{limit}: foveal {line}: {}", ran.err);
        }
    }
    assert!(refused > 5, "{refused}");
    let search = "search --index index --queries base.fbin --k 1 --threads 1";
    limited(&place, "ulimit -n 4", search).is_refusal(74, &["Too many open files"]);
}

#[test]
fn a_size_limit_is_an_error_that_leaves_nothing() {
    let place = Place::new();
    place.write("base.fbin", fbin(32, &noise(32 * 2_000, 1)));
    for line in [
        "build --base base.fbin --metric l2 --out index",
        "convert --in base.fbin --out out.npy",
        "truth --base base.fbin --queries base.fbin --metric l2 --k 10 --out out.ibin",
    ] {
        // Blocks of 512 bytes, or of 1 KiB.
        limited(&place, "ulimit -f 64", line).is_refusal(74, &["File too large"]);
        assert_eq!(place.names(), ["base.fbin"], "foveal {line}");
    }
}

#[test]
fn a_build_says_what_memory_it_needs() {
    let place = Place::new();
    place.write("base.fbin", fbin(8, &noise(300 * 8, 1)));
    let ran = place.ok("build --base base.fbin --metric l2 --out index");
    assert!(ran.err.starts_with("foveal: the build needs about "), "{}", ran.err);
    assert!(ran.err.contains(" of memory; ") && ran.err.ends_with(" are free\n"), "{}", ran.err);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
}

#[test]
fn a_truth_ends_soon_after_a_signal() {
    let place = Place::new();
    place.write("base.fbin", fbin(32, &noise(32 * 20_000, 1)));
    let line = "truth --base base.fbin --queries base.fbin --metric l2 --k 100 --out t.ibin \
                --threads 64";
    for signal in [Signal::TERM, Signal::INT] {
        let mut truth = place.start(line);
        std::thread::sleep(Duration::from_millis(700));
        let requested = Instant::now();
        truth.signal(signal);
        truth.end().is_refusal(130, &["interrupted"]);
        assert!(requested.elapsed() < Duration::from_secs(5), "{:?}", requested.elapsed());
        assert_eq!(place.names(), ["base.fbin"]);
    }
}

/// Whether a text has characters that drive a terminal or reorder what it shows.
fn drives(text: &str) -> bool {
    text.contains(|c: char| c != '\n' && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)))
}

#[test]
fn nothing_in_a_file_drives_the_terminal() {
    let place = Place::new();
    let evil = "\u{1b}]0;owned\u{7}\u{202e}x\u{9b}2J";
    place.write("base.fbin", fbin(8, &noise(100 * 8, 1)));
    place.write("descr.npy", npy(evil, "(1, 8)", &[0; 32]));
    let json = serde_json::Value::from(evil).to_string();
    place.write("tensor.safetensors", tensor(&json[1..json.len() - 1], "[1,8]", &[0.0; 8]));
    let line = format!("{{\"name\": {json}, \"description\": {json}}}\n");
    place.write("rows.jsonl", line.repeat(100));
    let name = format!("{evil}.fbin");
    place.write(&name, bin(1, 8, &[0; 3]));
    for (line, code) in [
        ("build --base descr.npy --metric l2 --out no".to_string(), 65),
        ("build --base tensor.safetensors --metric l2 --out no".into(), 2),
        ("build --base tensor.safetensors --tensor a --metric l2 --out no".into(), 65),
        (format!("convert --in {name} --out no.npy"), 65),
        (format!("inspect {evil}"), 66),
    ] {
        let ran = place.run(&line);
        assert_eq!(ran.code, code, "{}", ran.err);
        assert!(!drives(&ran.err) && ran.err.contains("\\u{"), "{:?}", ran.err);
    }
    let ran = place.run(&format!("inspect index {evil}"));
    assert!(ran.code == 2 && !drives(&ran.err), "{:?}", ran.err);
    place.ok("build --base base.fbin --metric ip --payload rows.jsonl --out index");
    let plain = "--index index --k 2 --show 2 --threads 1 --color never";
    for line in [
        format!("search {plain} --queries base.fbin"),
        format!("decode {plain} --hidden base.fbin"),
    ] {
        let ran = place.ok(&line);
        assert!(ran.out.contains("owned") && !drives(&ran.out), "foveal {line}: {:?}", ran.out);
    }
    fs::write(place.path("index").join(evil), "").unwrap();
    for line in ["check index --color never", "check index --format json"] {
        let ran = place.run(line);
        assert!(ran.code == 1 && !drives(&ran.out), "foveal {line}: {:?}", ran.out);
    }
}
