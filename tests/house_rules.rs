//! The house rules, checked by reading every source file.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{self, Source, functions, words};

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_COLUMNS: usize = 100;
const MAX_ARGUMENTS: usize = 5;

/// Where `unsafe` may stand: three modules of the engine, and where faiss is called.
const UNSAFE_MODULES: [&str; 4] =
    ["index/src/kernel/", "index/src/full_store/", "index/src/disk/", "bench/src/native.rs"];

fn rust() -> Vec<Source> {
    source::all().into_iter().filter(|file| file.extension() == "rs").collect()
}

/// Fails with every line of `broken`.
#[track_caller]
fn hold(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}; {} broken:\n  {}", broken.len(), broken.join("\n  "));
}

#[test]
fn files_are_short() {
    let mut broken = Vec::new();
    for file in rust().iter().filter(|file| !file.is_test()) {
        let lines = file.lines_before_tests();
        if lines > MAX_FILE_LINES {
            broken.push(format!("{}: {lines} lines", file.name));
        }
    }
    hold("a file has at most 500 lines before its tests", broken);
}

#[test]
fn functions_are_short_and_take_few_arguments() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for file in rust() {
        for function in functions(&file.code()) {
            seen += 1;
            let place = format!("{}:{}: {}", file.name, function.line, function.name);
            if function.lines > MAX_FUNCTION_LINES {
                broken.push(format!("{place} has {} lines", function.lines));
            }
            if function.arguments > MAX_ARGUMENTS {
                broken.push(format!("{place} takes {} arguments", function.arguments));
            }
        }
    }
    assert!(seen > 500, "only {seen} functions were found");
    hold("a function has at most 70 lines and 5 arguments", broken);
}

#[test]
fn lines_are_narrow() {
    let mut broken = Vec::new();
    for file in source::all() {
        if !["rs", "proto", "py"].contains(&file.extension()) {
            continue;
        }
        for (i, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > MAX_COLUMNS {
                broken.push(format!("{}:{}: {columns} columns", file.name, i + 1));
            }
        }
    }
    hold("a line has at most 100 columns", broken);
}

#[test]
fn unsafe_has_its_modules_and_reasons() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for file in rust() {
        let lines: Vec<&str> = file.text.lines().collect();
        for (at, after) in words(&file.code(), "unsafe") {
            seen += 1;
            let line = file.code()[..at].matches('\n').count();
            let place = format!("{}:{}", file.name, line + 1);
            if !UNSAFE_MODULES.iter().any(|module| file.name.starts_with(module)) {
                broken.push(format!("{place}: unsafe outside its modules"));
            }
            let wanted = if after.trim_start().starts_with("fn") { "# Safety" } else { "SAFETY:" };
            if !is_explained(&lines, line, wanted) {
                broken.push(format!("{place}: unsafe without {wanted:?} above it"));
            }
        }
    }
    assert!(seen > 10, "only {seen} uses of unsafe were found");
    hold("unsafe lives in its modules, and each use says why it is right", broken);
}

/// Whether the comment above the statement around `line` contains `wanted`.
fn is_explained(lines: &[&str], line: usize, wanted: &str) -> bool {
    let comment = |text: &str| text.trim_start().starts_with("//");
    let mut above = lines[..line].iter().rev().copied().enumerate();
    let Some((_, first)) = above.find(|(distance, text)| comment(text) || *distance == 4) else {
        return false;
    };
    let rest = above.map(|(_, text)| text).take_while(|text| comment(text));
    std::iter::once(first).chain(rest).any(|text| comment(text) && text.contains(wanted))
}

#[test]
fn one_file_detects_the_processor() {
    let mut broken = Vec::new();
    for file in rust() {
        let uses = words(&file.code(), "is_x86_feature_detected").count();
        if uses > 0 && file.name != "index/src/kernel/level.rs" {
            broken.push(file.name);
        }
    }
    hold("the processor is detected in index/src/kernel/level.rs only", broken);
}

#[test]
fn nothing_unwraps_or_is_left_undone() {
    let mut broken = Vec::new();
    for file in rust() {
        let code = file.code();
        for (i, line) in file.code_before_tests().lines().enumerate() {
            if !file.is_test() && (line.contains(".unwrap()") || line.contains(".unwrap_err()")) {
                broken.push(format!("{}:{}: unwrap", file.name, i + 1));
            }
        }
        for word in ["todo", "dbg", "unimplemented"] {
            if words(&code, word).any(|(_, after)| after.starts_with('!')) {
                broken.push(format!("{}: {word}!", file.name));
            }
        }
    }
    for file in source::all() {
        for word in [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")] {
            if words(&file.text, word).next().is_some() {
                broken.push(format!("{}: {word}", file.name));
            }
        }
    }
    hold("nothing unwraps outside of tests, and nothing is left undone", broken);
}

#[test]
fn files_are_named_after_what_they_do() {
    let vague = ["util", "utils", "helper", "helpers", "common", "misc", "manager"];
    let is_vague = |file: &Source| {
        let mut parts = file.name.split(['/', '.']);
        // The wire's shared words are called common.proto, as is the custom.
        parts.any(|part| vague.contains(&part)) && !file.name.ends_with(".proto")
    };
    let broken = source::all().into_iter().filter(is_vague).map(|file| file.name).collect();
    hold("no file is named util, helper, common, misc or manager", broken);
}

#[test]
fn nothing_names_a_machine_or_a_registry() {
    let needles = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("/tmp", "/"),
        concat!("crates", ".io"),
        concat!("pypi", ".org"),
        concat!("/iss", "ues/"),
        concat!("/pu", "ll/"),
    ];
    let mut broken = Vec::new();
    for file in source::all() {
        for (i, line) in file.text.lines().enumerate() {
            for needle in needles.iter().filter(|needle| line.contains(**needle)) {
                broken.push(format!("{}:{}: {needle}", file.name, i + 1));
            }
        }
    }
    hold("no file names a path of one machine, a registry or a ticket", broken);
}

#[test]
fn crates_depend_on_the_crates_below_them() {
    let ours = ["proto", "datasets", "index", "measure", "server", "bench"];
    let below: BTreeMap<&str, &[&str]> = [
        ("proto", &[][..]),
        ("datasets", &[]),
        ("index", &["datasets"]),
        ("measure", &["datasets", "index"]),
        ("server", &["datasets", "index", "measure", "proto"]),
        ("bench", &["datasets", "index", "measure", "proto"]),
    ]
    .into();
    let mut broken = Vec::new();
    for (member, allowed) in &below {
        let dir = if *member == "measure" { "bench/measure" } else { member };
        let manifest = std::fs::read_to_string(source::root().join(dir).join("Cargo.toml"));
        let manifest: toml::Table = manifest.unwrap().parse().unwrap();
        for table in ["dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(table).and_then(|table| table.as_table()) else {
                continue;
            };
            for other in ours.iter().filter(|other| !allowed.contains(*other)) {
                if table.contains_key(&format!("foveal-{other}")) {
                    broken.push(format!("{member} depends on {other}"));
                }
            }
        }
        let async_free = ["datasets", "index"].contains(member);
        for wire in ["tokio", "tonic", "prost", "hyper"] {
            let text = manifest.to_string();
            if async_free && text.contains(wire) {
                broken.push(format!("{member} depends on {wire}"));
            }
        }
    }
    hold("arrows between crates point down", broken);
}

#[test]
fn engine_and_datasets_know_no_wire() {
    let mut broken = Vec::new();
    for file in rust() {
        if !file.name.starts_with("index/") && !file.name.starts_with("datasets/") {
            continue;
        }
        for word in ["tokio", "tonic", "prost", "foveal_proto", "foveal_server", "async"] {
            if words(&file.code(), word).next().is_some() {
                broken.push(format!("{}: {word}", file.name));
            }
        }
    }
    hold("no async runtime and no wire type below the server", broken);
}

#[test]
fn graph_and_quantizer_do_not_know_each_other() {
    let mut broken = Vec::new();
    for (module, other) in [("graph", "quantizer"), ("quantizer", "graph")] {
        let prefix = format!("index/src/{module}/");
        let files: Vec<_> =
            rust().into_iter().filter(|file| file.name.starts_with(&prefix)).collect();
        assert!(files.len() > 3, "{module} has {} files", files.len());
        for file in files {
            if words(&file.code(), other).next().is_some() {
                broken.push(format!("{} names {other}", file.name));
            }
        }
    }
    hold("graph and quantizer meet in QueryDistance only", broken);
}

/// The layers of the engine as ARCHITECTURE.md lists them: module -> layer, 0 is the highest.
fn layers() -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(source::root().join("ARCHITECTURE.md")).unwrap();
    let (_, section) = text.split_once("### index").expect("a section about the engine");
    let (section, _) = section.split_once("\n### ").expect("a section after it");
    let mut layers = BTreeMap::new();
    let mut layer = 0;
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    for (i, row) in rows.enumerate() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        layer += usize::from(i > 0 && !cells[1].is_empty());
        for module in cells[2].split('`').skip(1).step_by(2) {
            layers.insert(module.to_string(), layer);
        }
    }
    layers
}

/// The names that follow `ROOT::` in code, where `root` is `crate` or what leads there.
fn named_of(root: &str, code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices(&format!("{root}::")) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        // In a module within the file `super` counts from there.
        let before = &code[..at];
        if root != "crate" && before.matches('{').count() > before.matches('}').count() {
            continue;
        }
        let Some(path) = code[at..].strip_prefix(&format!("{root}::")) else {
            continue;
        };
        let first = |part: &str| {
            let part = part.trim();
            part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
        };
        if !path.starts_with('{') {
            named.insert(first(path));
            continue;
        }
        let mut depth = 0;
        let mut part = String::new();
        for c in path.chars() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if depth == 0 || (depth == 1 && c == ',') {
                named.insert(first(&std::mem::take(&mut part)));
            } else if c != '{' || depth > 1 {
                part.push(c);
            }
            if depth == 0 {
                break;
            }
        }
        named.remove("");
    }
    named
}

#[test]
fn modules_of_the_engine_use_what_lies_below_them() {
    let layers = layers();
    assert!(layers.len() > 15, "the table of modules was not understood: {layers:?}");
    let mut broken = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust() {
        let Some(path) = file.name.strip_prefix("index/src/").filter(|path| *path != "lib.rs")
        else {
            continue;
        };
        let module = path.split(['/', '.']).next().unwrap_or_default();
        let Some(own) = layers.get(module) else {
            broken.push(format!("{}: {module} is not in ARCHITECTURE.md", file.name));
            continue;
        };
        seen.insert(module.to_string());
        let code = if file.is_test() { String::new() } else { file.code_before_tests() };
        let depth = path.trim_end_matches("/mod.rs").matches('/').count();
        let supers = vec!["super"; depth + 1].join("::");
        let named = named_of("crate", &code);
        for name in named.into_iter().chain(named_of(&supers, &code)) {
            match layers.get(&name) {
                Some(layer) if layer >= own => {}
                Some(_) => broken.push(format!("{} uses {name}, which lies above", file.name)),
                None => broken.push(format!("{} uses {name} of the front door", file.name)),
            }
        }
    }
    for module in layers.keys().filter(|module| !seen.contains(*module)) {
        broken.push(format!("{module} is in ARCHITECTURE.md and not in index/src"));
    }
    hold("arrows inside the engine point down", broken);
}

#[test]
fn the_layers_rule_sees_through_groups_of_names() {
    let code =
        "use crate::{a::{b, c}, d};\nuse crate::e::{F, x};\npub(crate) fn g() { crate::h() }";
    let named: Vec<String> = named_of("crate", code).into_iter().collect();
    assert_eq!(named, ["a", "d", "e", "h"]);
    let code = "use super::a;\nuse super::super::b::{c, d};\nuse super::super::super::e;";
    assert_eq!(named_of("super::super", code).into_iter().collect::<Vec<_>>(), ["b", "super"]);
}

/// One file defines how metrics differ, as methods; another computes distances. All other files
/// call those methods.
#[test]
fn few_files_compare_metrics() {
    let allowed = [
        "datasets/src/metric.rs",
        "datasets/src/hdf5/convention.rs",
        "index/src/distance.rs",
        "server/src/convert.rs",
    ];
    let engine = ["datasets/src/", "index/src/", "server/src/"];
    let mut broken = Vec::new();
    let mut seen = 0;
    for file in rust() {
        if file.is_test() || !engine.iter().any(|prefix| file.name.starts_with(prefix)) {
            continue;
        }
        for (i, line) in file.code_before_tests().lines().enumerate() {
            let compared = ["== Metric::", "!= Metric::"].iter().any(|it| line.contains(it));
            let names = ["L2", "InnerProduct", "Cosine"].map(|name| format!("Metric::{name}"));
            let arm = line
                .split_once("=>")
                .is_some_and(|(pattern, _)| names.iter().any(|name| words_of_path(pattern, name)));
            if !compared && !arm {
                continue;
            }
            seen += 1;
            if !allowed.contains(&&*file.name) {
                broken.push(format!("{}:{}: {}", file.name, i + 1, line.trim()));
            }
        }
    }
    assert!(seen > 10, "only {seen} places were found");
    hold("only methods of Metric compare metrics", broken);
}

/// Whether a pattern names a variant, and is no call.
fn words_of_path(pattern: &str, name: &str) -> bool {
    pattern.contains(name) && !pattern.contains("(Metric")
}

/// A list of all widths, metrics, formats or record layouts exists once.
#[test]
fn lists_exist_once() {
    let lists: [(&str, &[&str], &str); 4] = [
        ("widths", &["CodeWidth::Five,", "CodeWidth::Six,"], "index/src/code_width.rs"),
        ("metrics", &["Metric::L2, Metric::InnerProduct"], "datasets/src/metric.rs"),
        ("formats", &["Format::Safetensors)", "Format::Npy)"], "datasets/src/format.rs"),
        ("record layouts", &["Planar,", "Bytes,"], "index/src/quantizer/record.rs"),
    ];
    for (what, words, wanted) in lists {
        let is_list = |file: &&Source| {
            let code = file.code_before_tests();
            words.iter().all(|word| code.contains(word))
        };
        let files = rust();
        let found: Vec<&str> = (files.iter())
            .filter(|file| !file.is_test() && file.name != "tests/house_rules.rs")
            .filter(is_list)
            .map(|file| &*file.name)
            .collect();
        assert_eq!(found, [wanted], "the list of {what}");
    }
}
