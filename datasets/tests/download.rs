//! Fetching from a server in this process, which can do everything wrong.

#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use foveal_datasets::ErrorKind;
use foveal_datasets::download::{DownloadError, Fetched, FirstRows, Wanted, fetch};
use tempfile::TempDir;

/// How the server behaves, and what was requested.
#[derive(Clone, Default)]
struct Manner {
    body: Vec<u8>,
    etag: &'static str,
    modified: &'static str,
    /// Closes the connection after so many bytes of a body.
    cut: Option<usize>,
    /// Does not know ranges.
    no_ranges: bool,
    /// Ignores If-Range: sends a part of whatever there is now.
    careless: bool,
    /// Does not say how long a body is.
    no_length: bool,
    /// Answers with this instead.
    status: Option<&'static str>,
    requests: Vec<String>,
}

struct Server {
    url: String,
    manner: Arc<Mutex<Manner>>,
    folder: TempDir,
}

impl Server {
    fn of(body: &[u8]) -> Server {
        let manner = Manner { body: body.to_vec(), etag: "\"one\"", ..Manner::default() };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/set.bin", listener.local_addr().unwrap());
        let manner = Arc::new(Mutex::new(manner));
        let shared = manner.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that hangs up is no concern of the server.
                let _ = answer(stream.unwrap(), &shared);
            }
        });
        Server { url, manner, folder: tempfile::tempdir().unwrap() }
    }

    fn set(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.manner.lock().unwrap());
    }

    fn to(&self) -> PathBuf {
        self.folder.path().join("set.bin")
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted { url: &self.url, sha256: None, first: None }
    }

    fn fetch(&self) -> Result<Fetched, DownloadError> {
        fetch(&self.wanted(), &self.to(), &mut |_, _| {})
    }

    /// The header of a name in each request so far.
    fn header_of_requests(&self, name: &str) -> Vec<Option<String>> {
        let manner = self.manner.lock().unwrap();
        let of = |request: &String| {
            let mut lines = request.lines().filter_map(|line| line.split_once(": "));
            let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_owned())
        };
        manner.requests.iter().map(of).collect()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn answer(mut stream: TcpStream, manner: &Mutex<Manner>) -> std::io::Result<()> {
    let mut request = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    while !request.ends_with("\r\n\r\n") {
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
    }
    let mut manner = manner.lock().unwrap();
    let of = |name: &str| {
        let mut lines = request.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let (range, condition) = (of("range"), of("if-range"));
    manner.requests.push(request.clone());
    let total = manner.body.len();
    let same = condition.is_none_or(|c| c == manner.etag || c == manner.modified);
    let range = range.filter(|_| !manner.no_ranges && (same || manner.careless)).map(|range| {
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let end = last.parse::<usize>().map_or(total, |last| (last + 1).min(total));
        (first.parse::<usize>().unwrap(), end)
    });
    let mut head = String::new();
    let mut body = &manner.body[..];
    match (manner.status, range) {
        (Some(status), _) => {
            head += &format!("HTTP/1.1 {status}\r\n");
            body = b"no";
        }
        (None, Some((first, end))) if first < end => {
            head += "HTTP/1.1 206 Partial Content\r\n";
            head += &format!("Content-Range: bytes {first}-{}/{total}\r\n", end - 1);
            body = &manner.body[first..end];
        }
        (None, Some(_)) => {
            head += "HTTP/1.1 416 Range Not Satisfiable\r\n";
            body = b"";
        }
        (None, None) => head += "HTTP/1.1 200 OK\r\n",
    }
    if !manner.no_length {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in [("ETag", manner.etag), ("Last-Modified", manner.modified)] {
        if !value.is_empty() {
            head += &format!("{name}: {value}\r\n");
        }
    }
    let sent = manner.cut.unwrap_or(usize::MAX).min(body.len());
    stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    stream.write_all(&body[..sent])
}

fn some(seed: u8) -> Vec<u8> {
    (0..300_000u32).map(|i| (i / 7) as u8 ^ (i >> 3) as u8 ^ seed).collect()
}

#[track_caller]
fn broke_off(result: Result<Fetched, DownloadError>, at: u64) {
    let error = result.unwrap_err();
    assert!(matches!(error, DownloadError::Short { found, .. } if found == at), "{error}");
    let wanted = format!("the connection ended after {at} bytes; wanted 300000; fetch again");
    assert!(error.to_string().contains(&wanted), "{error}");
}

const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn a_file_arrives_whole_and_its_checksum_is_told() {
    let server = Server::of(b"abc");
    let mut told = Vec::new();
    let tell = &mut |done, total| told.push((done, total));
    let fetched = fetch(&server.wanted(), &server.to(), tell).unwrap();
    assert_eq!(fetched, Fetched { bytes: 3, sha256: ABC.into() });
    assert_eq!(fs::read(server.to()).unwrap(), b"abc");
    assert_eq!(server.names(), ["set.bin"]);
    assert_eq!(told, [(0, Some(3)), (3, Some(3))]);
    assert_eq!(server.header_of_requests("range"), [None]);
}

#[test]
fn a_fetch_goes_on_where_it_stopped() {
    for (etag, modified, condition) in [
        ("\"one\"", "", Some("\"one\"")),
        ("", "Mon, 02 Mar 2026 10:00:00 GMT", Some("Mon, 02 Mar 2026 10:00:00 GMT")),
        ("W/\"weak\"", "", None),
        ("", "", None),
    ] {
        let server = Server::of(&some(1));
        server.set(|manner| {
            (manner.etag, manner.modified, manner.cut) = (etag, modified, Some(100_000));
        });
        broke_off(server.fetch(), 100_000);
        assert_eq!(server.names(), ["set.bin.part", "set.bin.part.of"]);
        broke_off(server.fetch(), 200_000);
        assert_eq!(server.fetch().unwrap().bytes, 300_000);
        assert_eq!(fs::read(server.to()).unwrap(), some(1));
        assert_eq!(server.names(), ["set.bin"]);
        let ranges = [None, Some("bytes=100000-".to_owned()), Some("bytes=200000-".to_owned())];
        assert_eq!(server.header_of_requests("range"), ranges);
        assert_eq!(
            server.header_of_requests("if-range")[1].as_deref(),
            condition,
            "{etag}{modified}"
        );
    }
}

#[test]
fn a_file_that_changed_is_fetched_anew() {
    for careless in [false, true] {
        let server = Server::of(&some(1));
        server.set(|manner| manner.cut = Some(100_000));
        broke_off(server.fetch(), 100_000);
        server.set(|manner| {
            (manner.etag, manner.body, manner.cut) = ("\"two\"", some(2), None);
            manner.careless = careless;
        });
        assert_eq!(server.fetch().unwrap().bytes, 300_000);
        assert_eq!(fs::read(server.to()).unwrap(), some(2), "careless {careless}");
    }
    // Nothing but the length tells.
    let server = Server::of(&some(1));
    server.set(|manner| (manner.etag, manner.cut) = ("", Some(100_000)));
    broke_off(server.fetch(), 100_000);
    for len in [250_000, 50_000] {
        server.set(|manner| (manner.body, manner.cut) = (some(2)[..len].to_vec(), Some(40_000)));
        let error = server.fetch().unwrap_err();
        assert!(matches!(error, DownloadError::Short { found: 40_000, .. }), "{error}");
    }
    server.set(|manner| manner.cut = None);
    assert_eq!(server.fetch().unwrap().bytes, 50_000);
    assert_eq!(fs::read(server.to()).unwrap(), some(2)[..50_000]);
}

#[test]
fn a_server_that_knows_no_ranges_sends_everything_again() {
    let server = Server::of(&some(1));
    server.set(|manner| (manner.no_ranges, manner.cut) = (true, Some(100_000)));
    broke_off(server.fetch(), 100_000);
    server.set(|manner| manner.cut = None);
    assert_eq!(server.fetch().unwrap().bytes, 300_000);
    assert_eq!(fs::read(server.to()).unwrap(), some(1));
}

#[test]
fn a_server_that_says_no_length_is_believed() {
    let server = Server::of(&some(1));
    server.set(|manner| manner.no_length = true);
    assert_eq!(server.fetch().unwrap().bytes, 300_000);
    assert_eq!(fs::read(server.to()).unwrap(), some(1));
}

#[test]
fn bytes_without_a_description_are_not_gone_on_with() {
    let server = Server::of(&some(1));
    fs::write(server.folder.path().join("set.bin.part"), [9; 1000]).unwrap();
    assert_eq!(server.fetch().unwrap().bytes, 300_000);
    assert_eq!(fs::read(server.to()).unwrap(), some(1));
}

#[test]
fn a_wrong_checksum_keeps_nothing() {
    let server = Server::of(b"abd");
    let wanted = Wanted { sha256: Some(ABC), ..server.wanted() };
    let error = fetch(&wanted, &server.to(), &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().ends_with(&format!("; wanted {ABC}; nothing was kept")), "{error}");
    assert!(server.names().is_empty());
    server.set(|manner| manner.body = b"abc".into());
    assert_eq!(fetch(&wanted, &server.to(), &mut |_, _| {}).unwrap().sha256, ABC);
}

#[test]
fn refusals_are_told_in_one_line() {
    let server = Server::of(b"abc");
    server.set(|manner| manner.status = Some("404 Not Found"));
    let error = server.fetch().unwrap_err().to_string();
    assert!(
        error.ends_with("/set.bin: the server answers 404 Not Found; wanted the file"),
        "{error}"
    );
    assert!(server.names().is_empty());

    // Nobody listens on the port of an address that was just given back.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}/set.bin");
    let error = fetch(&Wanted { url: &url, ..server.wanted() }, &server.to(), &mut |_, _| {});
    let error = error.unwrap_err();
    assert!(matches!(error, DownloadError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("cannot be fetched: "), "{error}");

    let ftp = Wanted { url: "ftp://127.0.0.1/set.bin", ..server.wanted() };
    let error = fetch(&ftp, &server.to(), &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.ends_with("found an address of another kind; wanted http or https"), "{error}");
}

#[test]
fn what_is_there_is_never_replaced() {
    let server = Server::of(b"abc");
    fs::write(server.to(), "mine").unwrap();
    let DownloadError::File(error) = server.fetch().unwrap_err() else { panic!("a file is there") };
    assert_eq!(error.kind(), ErrorKind::CannotCreate);
    assert_eq!(fs::read(server.to()).unwrap(), b"mine");
    assert!(server.header_of_requests("range").is_empty(), "no request was sent");
    let nowhere = server.folder.path().join("no/such/set.bin");
    let error = fetch(&server.wanted(), &nowhere, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("set.bin.part: cannot be created: "), "{error}");
}

#[test]
fn a_full_disk_is_told() {
    if !Path::new("/dev/full").exists() {
        eprintln!("skipped: this system has no /dev/full");
        return;
    }
    let server = Server::of(&some(1));
    std::os::unix::fs::symlink("/dev/full", server.folder.path().join("set.bin.part")).unwrap();
    let error = server.fetch().unwrap_err().to_string();
    assert!(error.contains("set.bin.part: cannot be written: No space left"), "{error}");
    assert!(!server.to().exists());
}

#[test]
fn two_fetches_of_one_name_do_not_meet() {
    let server = Server::of(&some(1));
    let file = fs::File::create(server.folder.path().join("set.bin.part")).unwrap();
    file.lock().unwrap();
    let error = server.fetch().unwrap_err().to_string();
    assert!(error.contains("another process is fetching it"), "{error}");
    drop(file);
    server.fetch().unwrap();
}

#[test]
fn the_first_rows_of_a_file_say_how_many_they_are() {
    let rows = |count: u32| [&count.to_le_bytes()[..], &[4, 0, 0, 0]].concat();
    let body = [rows(1000), some(3)[..4000].to_vec()].concat();
    for no_ranges in [false, true] {
        let server = Server::of(&body);
        server.set(|manner| (manner.no_ranges, manner.cut) = (no_ranges, Some(100)));
        let first = Some(FirstRows { rows: 50, bytes: 208 });
        let wanted = Wanted { first, ..server.wanted() };
        let fetch = || fetch(&wanted, &server.to(), &mut |_, _| {});
        assert!(matches!(fetch(), Err(DownloadError::Short { found: 100, .. })));
        server.set(|manner| manner.cut = None);
        assert_eq!(fetch().unwrap().bytes, 208);
        let wanted = [rows(50), some(3)[..200].to_vec()].concat();
        assert_eq!(fs::read(server.to()).unwrap(), wanted);
        if !no_ranges {
            let ranges = server.header_of_requests("range");
            assert_eq!(ranges, ["bytes=0-207", "bytes=100-207"].map(|r| Some(r.to_owned())));
        }
    }
    let server = Server::of(&body);
    let first = Some(FirstRows { rows: 5000, bytes: 20_008 });
    let error = fetch(&Wanted { first, ..server.wanted() }, &server.to(), &mut |_, _| {});
    let error = error.unwrap_err().to_string();
    assert!(error.ends_with("found a file of 4008 bytes; wanted the first 20008"), "{error}");
}
