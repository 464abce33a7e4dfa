//! How many file descriptors there are, and how many of them connections may take.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are left for whatever else is opened.
const SPARE: u64 = 16;

/// Raises the soft limit of descriptors to the hard one.
pub(super) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let highest = Rlimit { current: limit.maximum, ..limit };
    // Where that is refused the limit stays as it is, which `limit` returns.
    let _ = setrlimit(Resource::Nofile, highest);
}

/// The most connections at a time: as many as are allowed, or fewer, so that descriptors are left
/// for `rings`.
pub(super) fn most_connections(allowed: usize, rings: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let used = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
    within(limit, used + rings as u64 + SPARE, allowed)
}

/// As many of `limit` descriptors as `taken` leaves, but not less than a quarter of them.
fn within(limit: u64, taken: u64, allowed: usize) -> usize {
    let left = limit.saturating_sub(taken).max(limit / 4).max(1);
    allowed.min(usize::try_from(left).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        for (limit, taken, allowed, most) in [
            (1 << 20, 100, 4_096, 4_096),
            (1_024, 100, 4_096, 924),
            (64, 40, 4_096, 24),
            (64, 60, 4_096, 16),
            (64, 600, 10, 10),
            (1, 9, 10, 1),
            (u64::MAX, 9, usize::MAX, usize::try_from(u64::MAX - 9).unwrap_or(usize::MAX)),
        ] {
            assert_eq!(within(limit, taken, allowed), most, "{taken} of {limit}");
        }
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert!(most_connections(usize::MAX, 0) > 0);
    }
}
