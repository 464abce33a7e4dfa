//! The program, run as its users run it: a command line in a directory of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything that is waited for may take, slow machines included.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What a run of the program came to.
pub struct Ran {
    /// The command line.
    pub line: String,
    /// The exit code; that of a signal as a shell would tell it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A directory for a scenario; removed when it ends.
pub struct Place {
    dir: TempDir,
}

impl Place {
    /// An empty one.
    pub fn new() -> Place {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    /// The path of a name in it; of the directory itself for "".
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Every name in it, hidden ones included, in order.
    pub fn names(&self) -> Vec<String> {
        names_in(self.dir.path())
    }

    /// Runs `foveal LINE` here. Words are split at blanks.
    pub fn run(&self, line: &str) -> Ran {
        ran(line, self.command(line).output().unwrap())
    }

    /// As [`Place::run`]; the run must succeed.
    #[track_caller]
    pub fn ok(&self, line: &str) -> Ran {
        let ran = self.run(line);
        assert_eq!(ran.code, 0, "foveal {line}: {}", ran.err);
        assert!(!ran.err.contains("panicked"), "foveal {line}: {}", ran.err);
        ran
    }

    /// As [`Place::ok`], with `--format json`: the object printed.
    #[track_caller]
    pub fn json(&self, line: &str) -> Value {
        self.ok(&format!("{line} --format json")).json()
    }

    /// The run must fail with `code` and one line on stderr that contains all of `wanted`, and
    /// leave the directory as it was.
    #[track_caller]
    pub fn refused(&self, line: &str, code: i32, wanted: &[&str]) {
        let before = self.names();
        let ran = self.run(line);
        ran.is_refusal(code, wanted);
        assert_eq!(self.names(), before, "foveal {line} left something behind");
    }

    /// Starts `foveal LINE` here.
    pub fn start(&self, line: &str) -> Running {
        self.start_with(line, &[])
    }

    /// As [`Place::start`], with more environment.
    pub fn start_with(&self, line: &str, environment: &[(&str, &str)]) -> Running {
        let mut command = self.command(line);
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running { line: line.into(), child: Some(command.spawn().unwrap()) }
    }

    /// As [`Place::start`], by a line of sh that runs the program as "$0" "$@".
    pub fn start_under(&self, shell: &str, line: &str) -> Running {
        let program = self.command(line);
        let mut command = Command::new("sh");
        command.args(["-c", shell]).arg(program.get_program()).args(program.get_args());
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running { line: line.into(), child: Some(command.spawn().unwrap()) }
    }

    /// The program with its arguments, untouched by the caller's settings.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foveal"));
        command.args(line.split_whitespace()).current_dir(self.dir.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("FOVEAL_")) {
                command.env_remove(name);
            }
        }
        command.env_remove("NO_COLOR").env("TERM", "xterm-256color");
        command
    }
}

/// Every name in a directory, hidden ones included, in order.
pub fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The result of a finished process.
pub fn ran(line: &str, output: Output) -> Ran {
    use std::os::unix::process::ExitStatusExt;

    let signal = || 128 + output.status.signal().unwrap_or_default();
    Ran {
        line: line.into(),
        code: output.status.code().unwrap_or_else(signal),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ran {
    /// Standard output as one JSON object on one line.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.out.matches('\n').count(), 1, "one line: {}", self.out);
        serde_json::from_str(&self.out).unwrap()
    }

    /// The run failed with `code` and said why on one line that contains all of `wanted`. Lines
    /// before it are notes.
    #[track_caller]
    pub fn is_refusal(&self, code: i32, wanted: &[&str]) {
        let Ran { line, out, err, .. } = self;
        assert_eq!(self.code, code, "foveal {line}: {err}{out}");
        let errors = err.lines().filter(|line| line.starts_with("foveal: error: ")).count();
        assert_eq!(errors, 1, "one error: foveal {line}: {err}");
        assert!(err.lines().all(|line| line.starts_with("foveal: ")), "foveal {line}: {err}");
        let last = err.lines().last().unwrap_or_default();
        assert!(last.starts_with("foveal: error: "), "foveal {line}: {err}");
        assert!(!err.contains("panicked"), "foveal {line}: {err}");
        assert!(out.is_empty(), "foveal {line} printed a result: {out}");
        for part in wanted {
            assert!(err.contains(part), "foveal {line}: {part:?} is not in {err}");
        }
    }
}

/// A run of the program that has not ended; killed when it is forgotten.
pub struct Running {
    line: String,
    child: Option<Child>,
}

impl Running {
    /// The process.
    pub fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("it is taken by the end only")
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        let pid = Pid::from_child(self.child());
        kill_process(pid, signal).unwrap();
    }

    /// Waits until `there` is so; the program must still be running.
    #[track_caller]
    pub fn until(&mut self, there: impl Fn() -> bool) {
        let begun = Instant::now();
        while !there() {
            let ended = self.child().try_wait().unwrap();
            assert!(ended.is_none(), "foveal {} ended: {ended:?}", self.line);
            assert!(begun.elapsed() < PATIENCE, "foveal {}: nothing happened", self.line);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the end.
    pub fn end(mut self) -> Ran {
        let mut child = self.child.take().expect("it is taken by the end only");
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begun.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("foveal {} does not end", self.line);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        ran(&self.line, child.wait_with_output().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The names of the fields of a JSON object, in the order in which they stand.
pub fn fields(text: &str) -> Vec<String> {
    struct Fields(Vec<String>);

    impl<'de> serde::Deserialize<'de> for Fields {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Fields, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Fields;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }

                fn visit_map<A: serde::de::MapAccess<'de>>(
                    self,
                    mut map: A,
                ) -> Result<Fields, A::Error> {
                    let mut names = Vec::new();
                    while let Some((name, _)) = map.next_entry::<String, Value>()? {
                        names.push(name);
                    }
                    Ok(Fields(names))
                }
            }
            from.deserialize_map(Visitor)
        }
    }

    serde_json::from_str::<Fields>(text).unwrap().0
}
