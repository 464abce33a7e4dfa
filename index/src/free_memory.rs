//! How much memory is free for this process: on the machine, and within its control groups.

use std::fs;
use std::path::{Path, PathBuf};

/// Memory that this process could still take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeMemory {
    /// How much, in bytes.
    pub bytes: u64,
    /// Whose it is: the machine's, or that of a control group, as container runtimes make them.
    pub of: &'static str,
}

const MACHINE: &str = "the machine";
const GROUP: &str = "the control group (container)";

/// The memory that is free now, page cache that can be dropped included; `None` where the system
/// does not report it.
pub fn free_memory() -> Option<FreeMemory> {
    below(Path::new("/"))
}

/// As [`free_memory`], of the system whose files lie in `root`.
fn below(root: &Path) -> Option<FreeMemory> {
    let info = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let machine = field(&info, "MemAvailable:")
        .map(|kib| FreeMemory { bytes: kib.saturating_mul(1024), of: MACHINE });
    let group = group_free(root).map(|bytes| FreeMemory { bytes, of: GROUP });
    machine.into_iter().chain(group).min_by_key(|free| free.bytes)
}

/// What the tightest control group around this process leaves; `None` where none sets a limit.
fn group_free(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = root.join("sys/fs/cgroup");
    let mut least = None;
    for line in groups.lines() {
        // "0::/path" in version 2, "4:memory,cpu:/path" in version 1.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (mount, files) = match controllers {
            "" => (mounts.clone(), &VERSION_2),
            names if names.split(',').any(|name| name == "memory") => {
                (mounts.join("memory"), &VERSION_1)
            }
            _ => continue,
        };
        // In a namespace of its own the group of a container is the root, whatever it is called
        // outside: directories that are not there are passed over.
        let path = PathBuf::from(path.trim_start_matches('/'));
        let free = path.ancestors().filter_map(|group| files.free(&mount.join(group)));
        least = free.chain(least).min();
    }
    least
}

/// The names of the files of a control group.
struct GroupFiles {
    limit: &'static str,
    used: &'static str,
    /// Fields of `memory.stat`: page cache, which the kernel drops before it ends a process.
    cache: [&'static str; 2],
}

const VERSION_2: GroupFiles = GroupFiles {
    limit: "memory.max",
    used: "memory.current",
    cache: ["active_file ", "inactive_file "],
};
const VERSION_1: GroupFiles = GroupFiles {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cache: ["total_active_file ", "total_inactive_file "],
};

impl GroupFiles {
    /// What the group leaves; `None` without a limit ("max", or more than any machine has).
    fn free(&self, group: &Path) -> Option<u64> {
        let number =
            |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
        let limit = number(self.limit).filter(|limit| *limit < 1 << 60)?;
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cache: u64 = self.cache.iter().filter_map(|name| field(&stat, name)).sum();
        let used = number(self.used).unwrap_or(0).saturating_sub(cache);
        Some(limit.saturating_sub(used))
    }
}

/// The number of a line such as `MemAvailable:   1024 kB` or `active_file 4096`.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> Option<FreeMemory> {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        below(root.path())
    }

    const INFO: (&str, &str) = ("proc/meminfo", "MemTotal: 99 kB\nMemAvailable:    1000 kB\n");

    #[test]
    fn without_limits_the_machine_counts() {
        let machine = Some(FreeMemory { bytes: 1_024_000, of: MACHINE });
        assert_eq!(system(&[INFO]), machine);
        let groups = ("proc/self/cgroup", "0::/a\n");
        assert_eq!(system(&[INFO, groups, ("sys/fs/cgroup/a/memory.max", "max\n")]), machine);
        assert_eq!(system(&[]), None);
    }

    #[test]
    fn the_tightest_group_of_version_2_counts_without_its_page_cache() {
        let free = system(&[
            INFO,
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "900000\n"),
            ("sys/fs/cgroup/outer/inner/memory.current", "100000\n"),
            ("sys/fs/cgroup/outer/memory.max", "600000\n"),
            ("sys/fs/cgroup/outer/memory.current", "500000\n"),
            ("sys/fs/cgroup/outer/memory.stat", "anon 1\nactive_file 100000\ninactive_file 7\n"),
        ]);
        assert_eq!(free, Some(FreeMemory { bytes: 200_007, of: GROUP }));
        // In a container the path of the host leads nowhere.
        let free = system(&[
            INFO,
            ("proc/self/cgroup", "0::/../../host/name\n"),
            ("sys/fs/cgroup/memory.max", "500000\n"),
        ]);
        assert_eq!(free, Some(FreeMemory { bytes: 500_000, of: GROUP }));
    }

    #[test]
    fn groups_of_version_1_are_seen_as_well() {
        let free = system(&[
            INFO,
            ("proc/self/cgroup", "5:cpu:/x\n4:memory,hugetlb:/docker/1\n1:name=systemd:/y\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "700000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "300000\n"),
            ("sys/fs/cgroup/memory/memory.stat", "total_active_file 5\nactive_file 99\n"),
        ]);
        assert_eq!(free, Some(FreeMemory { bytes: 400_005, of: GROUP }));
        let free = system(&[
            INFO,
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(free.unwrap().of, MACHINE);
    }

    #[test]
    fn this_machine_has_some() {
        assert!(free_memory().unwrap().bytes > 0);
    }
}
