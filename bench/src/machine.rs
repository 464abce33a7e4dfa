//! Where figures were measured: processor, memory, system, commit, time.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::line::Origin;

/// A machine, as far as figures depend on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's own name.
    pub cpu: String,
    /// Logical processors this process may use.
    pub cores: u32,
    /// Instruction sets that vector search profits from, of those the processor has.
    pub flags: Vec<String>,
    /// Bytes of the last level of cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_bytes: Option<u64>,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Name and release of the system.
    pub system: String,
}

/// Instruction sets worth telling, as the kernel calls them.
const FLAGS: &[&str] = &[
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_vpopcntdq",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
];

impl Machine {
    /// This machine. What it does not tell is empty or 0.
    pub fn here() -> Machine {
        let cpuinfo = read("/proc/cpuinfo");
        let of = |name: &str| {
            let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| key.trim() == name).map_or("", |(_, value)| value.trim())
        };
        let has: Vec<&str> = of("flags").split_whitespace().collect();
        let kibibytes = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
        let memory = read("/proc/meminfo");
        let release = read("/proc/sys/kernel/osrelease");
        Machine {
            cpu: of("model name").to_owned(),
            cores: cores(),
            flags: FLAGS.iter().filter(|flag| has.contains(flag)).map(|f| (*f).into()).collect(),
            cache_bytes: last_cache(),
            memory_bytes: memory.lines().next().and_then(kibibytes).unwrap_or(0) * 1024,
            system: format!("{} {}", std::env::consts::OS, release.trim()),
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn last_cache() -> Option<u64> {
    let sizes = (0..8).filter_map(|i| {
        let text = read(&format!("/sys/devices/system/cpu/cpu0/cache/index{i}/size"));
        text.trim().strip_suffix('K')?.parse::<u64>().ok()
    });
    sizes.max().map(|kibibytes| kibibytes * 1024)
}

/// The commit of the working directory, with `+` if files differ from it; `unknown` elsewhere.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let done = Command::new("git").args(arguments).output().ok()?;
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".into();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    if changed.is_some_and(|files| !files.is_empty()) { commit + "+" } else { commit }
}

/// Logical processors this process may use.
pub fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32)
}

/// Processor time that all threads of this process have taken so far.
pub fn processor_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The origin of a line that is measured here and now, by this process.
pub fn origin(version: String) -> Origin {
    let date = jiff::Timestamp::now().round(jiff::Unit::Second);
    let command: Vec<String> =
        std::env::args_os().enumerate().map(|(i, word)| shown(i, Path::new(&word))).collect();
    Origin {
        machine: Some(Machine::here()),
        version,
        date: date.map(|date| date.to_string()).unwrap_or_default(),
        command: command.join(" "),
    }
}

/// A word of the command, paths cut to what names them: lines are published.
fn shown(position: usize, word: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    match name(word) {
        Some(name) if position == 0 || word.is_absolute() => name,
        _ => word.to_string_lossy().into_owned(),
    }
}
