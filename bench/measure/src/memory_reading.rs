//! How much memory this process holds, as the kernel counts it.

use std::io;
use std::path::Path;

/// Bytes of anonymous memory that are resident now: what the process allocated and touched, which
/// nothing but swapping can take away. Mapped files (the full store, the program) are not in it.
///
/// # Errors
/// The kernel reports neither in `smaps_rollup` nor in `status`.
pub fn anonymous_bytes() -> io::Result<u64> {
    // The rollup walks the page tables and is exact; the counters of `status` lag behind a little.
    let rollup = field(Path::new("/proc/self/smaps_rollup"), "Anonymous:");
    if let Ok(Some(bytes)) = rollup {
        return Ok(bytes);
    }
    let status = Path::new("/proc/self/status");
    field(status, "RssAnon:")?
        .ok_or_else(|| io::Error::other("/proc/self/status has no line RssAnon"))
}

fn field(path: &Path, name: &str) -> io::Result<Option<u64>> {
    Ok(bytes_of_field(&std::fs::read_to_string(path)?, name))
}

/// The bytes of a line such as `RssAnon:      1024 kB`.
fn bytes_of_field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_kibibytes() {
        let text = "VmRSS:\t  300 kB\nRssAnon:\t     120 kB\nRssFile:\t 180 kB\n";
        assert_eq!(bytes_of_field(text, "RssAnon:"), Some(120 * 1024));
        assert_eq!(bytes_of_field(text, "RssShmem:"), None);
        assert_eq!(bytes_of_field("RssAnon: many kB", "RssAnon:"), None);
    }

    #[test]
    fn touched_memory_is_counted() {
        const SIZE: u64 = 64 << 20;
        let before = anonymous_bytes().unwrap();
        let memory = std::hint::black_box(vec![1_u8; SIZE as usize]);
        let after = anonymous_bytes().unwrap();
        drop(memory);
        // Other tests run in the same process: only the order of magnitude is certain.
        assert!(after > before + SIZE / 2, "{before} then {after}");
    }
}
