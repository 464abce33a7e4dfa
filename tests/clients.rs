//! The example clients, run against a server over the sample.

use std::path::PathBuf;
use std::process::Command;

use crate::program::{Place, Ran, ran};
use crate::sample::{QUERIES, ROWS, place_beside_it, sample};
use crate::service::Server;
use crate::source::root;
use crate::vectors::npy;

const SERVE: &str = "serve --listen 127.0.0.1:0 --index packages=sample/index";

/// What both clients print of the neighbors of row 0: the collection, then rank, key, distance and
/// name, nearest first.
#[track_caller]
fn shows_the_neighbors_of_row_0(ran: &Ran) {
    assert_eq!(ran.code, 0, "{}: {}", ran.line, ran.err);
    let first = ran.out.lines().next().unwrap();
    assert!(first.starts_with(&format!("packages: {ROWS} vectors of 384 dimensions")), "{first}");
    let table: Vec<&str> =
        ran.out.lines().skip_while(|line| !line.trim().starts_with("rank")).skip(1).collect();
    let payload = std::fs::read_to_string(sample().dir.join("payload.jsonl")).unwrap();
    for (rank, (distance, row)) in sample().nearest(0, 4).into_iter().enumerate() {
        let words: Vec<&str> = table[rank].split_whitespace().collect();
        assert_eq!(words[..2], [(rank + 1).to_string(), row.to_string()], "{}", ran.out);
        assert!((words[2].parse::<f64>().unwrap() - distance).abs() < 1e-4, "{}", ran.out);
        let line = payload.lines().nth(row as usize).unwrap();
        let name = serde_json::from_str::<serde_json::Value>(line).unwrap()["name"].clone();
        assert!(table[rank].contains(name.as_str().unwrap()), "{name}: {}", ran.out);
    }
}

/// The example client in Rust, built as its readers build it.
fn rust_client() -> PathBuf {
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--offline", "--quiet", "--message-format=json"]);
    command.args(["--package", "foveal-server", "--example", "search"]).current_dir(root());
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let built = ran("build --example search", command.output().unwrap());
    assert_eq!(built.code, 0, "{}", built.err);
    let of_example = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    };
    built.out.lines().filter_map(of_example).next_back().expect("cargo tells what it built")
}

#[test]
fn the_rust_client_searches() {
    let place = place_beside_it();
    let server = Server::start(&place, SERVE, &[]);
    let request = |flags: &[&str]| {
        let mut command = Command::new(rust_client());
        command.arg("--addr").arg(format!("http://{}", server.address));
        command.arg("--queries").arg(sample().dir.join("base.f16bin")).args(["--k", "4"]);
        ran("search.rs", command.args(flags).output().unwrap())
    };
    shows_the_neighbors_of_row_0(&request(&["--collection", "packages"]));
    shows_the_neighbors_of_row_0(&request(&[]));
    let refused = request(&["--collection", "nobody"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.starts_with("NotFound: collection nobody"), "{}", refused.err);
}

/// An interpreter that has what the example needs.
fn python() -> Option<String> {
    let named = std::env::var("FOVEAL_PYTHON").ok();
    let requested = named.is_some();
    let python = named.unwrap_or_else(|| "python3".into());
    let probe = Command::new(&python).args(["-c", "import grpc, grpc_tools, numpy"]).output();
    let fits = probe.as_ref().is_ok_and(|output| output.status.success());
    assert!(fits || !requested, "FOVEAL_PYTHON={python} cannot run the example: {probe:?}");
    fits.then_some(python)
}

#[test]
fn the_python_client_searches() {
    let Some(python) = python() else {
        eprintln!("skipped: python3 has no grpcio, grpcio-tools and numpy; see FOVEAL_PYTHON");
        return;
    };
    let place = place_beside_it();
    let server = Server::start(&place, SERVE, &[]);
    let request = |flags: &[&str]| {
        let mut command = Command::new(&python);
        command.arg(root().join("server/examples/python/search.py"));
        command.args(["--addr", &server.address, "--k", "4"]).args(flags);
        // Compiled files do not belong into the source tree.
        command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(place.path(""));
        ran("search.py", command.output().unwrap())
    };
    let queries = ["--collection", "packages", "--queries", "sample/queries.f16bin"];
    let shown = request(&[&queries[..], &["--all-out", "keys.npy"]].concat());
    shows_the_neighbors_of_row_0(&shown);
    place.ok("search --index sample/index --queries sample/queries.f16bin --k 4 --ids-out 4.ibin");
    let wanted: Vec<u8> = crate::vectors::ibin(&place.path("4.ibin"))
        .keys
        .iter()
        .flatten()
        .flat_map(|key| i64::from(*key).to_le_bytes())
        .collect();
    let keys = std::fs::read(place.path("keys.npy")).unwrap();
    // A key of 2^64 - 1 is no -1.
    assert!(keys.windows(5).any(|some| some == b"'<u8'"), "keys are unsigned");
    assert!(keys.ends_with(&wanted) && keys.len() < wanted.len() + 256, "keys of all queries");
    assert_eq!(wanted.len(), QUERIES * 4 * 8);

    // A row from NumPy, as f32.
    let row: Vec<u8> = sample().row(0).iter().flat_map(|x| (*x as f32).to_le_bytes()).collect();
    place.write("row.npy", npy("<f4", "(1, 384)", &row));
    shows_the_neighbors_of_row_0(&request(&["--queries", "row.npy"]));
    let refused = request(&["--queries", "row.npy", "--collection", "nobody"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.starts_with("NOT_FOUND: collection nobody"), "{}", refused.err);
}

#[test]
fn a_client_without_a_server_says_so() {
    let place = Place::new();
    let mut command = Command::new(rust_client());
    // Nobody listens on the port of an address that was just given back.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    command.arg("--addr").arg(format!("http://{free}"));
    command.arg("--queries").arg(sample().dir.join("base.f16bin")).current_dir(place.path(""));
    let refused = ran("search.rs", command.output().unwrap());
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.starts_with(&format!("no server answers at http://{free}")),
        "{}",
        refused.err
    );
}

#[test]
fn payloads_do_not_drive_the_terminal_of_a_client() {
    let place = Place::new();
    place.write("base.fbin", crate::vectors::fbin(8, &crate::vectors::noise(50 * 8, 1)));
    let payload = "{\"name\": \"a\u{9b}31m\u{202e}b\\u001b[2J\"}\n";
    place.write("rows.jsonl", payload.repeat(50));
    place.ok("build --base base.fbin --metric l2 --payload rows.jsonl --out index");
    let server = Server::start(&place, "serve --listen 127.0.0.1:0 --index evil=index", &[]);
    let mut rust = Command::new(rust_client());
    rust.arg("--addr").arg(format!("http://{}", server.address));
    let mut commands = vec![rust];
    if let Some(python) = python() {
        let mut command = Command::new(python);
        command.arg(root().join("server/examples/python/search.py"));
        command.args(["--addr", &server.address]).env("PYTHONDONTWRITEBYTECODE", "1");
        commands.push(command);
    }
    for mut command in commands {
        command.args(["--queries", "base.fbin", "--k", "2"]).current_dir(place.path(""));
        let shown = ran("a client", command.output().unwrap());
        assert_eq!(shown.code, 0, "{}", shown.err);
        let drives = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(shown.out.contains(r"\u{202e}") && !shown.out.contains(drives), "{:?}", shown.out);
    }
}
