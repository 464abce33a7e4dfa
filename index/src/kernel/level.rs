//! CPU levels: which there are, which this CPU has, and which version of a kernel runs on which.
//!
//! A new level is a line of `Level`, of `NAMES` and of `detect`, and an arm of `for_every_level`.
//! It then runs every kernel: those written once are compiled for it, and of the others it runs the
//! version of the level below until it has its own.

use std::sync::LazyLock;

/// What a CPU can do, in steps: a level has all that is below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Any 64-bit CPU.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI, and what every such CPU has: POPCNT, BMI.
    Avx512,
    /// The same with VBMI, which permutes the bytes of a line.
    Avx512Vbmi,
}

/// All levels from the lowest, with the names that `FOVEAL_CPU` takes.
const NAMES: [(Level, &str); 4] = [
    (Level::Portable, "portable"),
    (Level::Avx2, "avx2"),
    (Level::Avx512, "avx512"),
    (Level::Avx512Vbmi, "avx512vbmi"),
];

impl Level {
    /// The best level of this CPU.
    pub(crate) fn best() -> Level {
        static BEST: LazyLock<Level> = LazyLock::new(Level::detect);
        *BEST
    }

    fn detect() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            macro_rules! has {
                ($($feature:tt)*) => { true $(&& is_x86_feature_detected!($feature))* };
            }
            let steps = [
                (Level::Avx2, has!("avx2" "fma" "f16c")),
                (
                    Level::Avx512,
                    has!("avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vnni"
                        "popcnt" "bmi1" "bmi2"),
                ),
                (Level::Avx512Vbmi, has!("avx512vbmi")),
            ];
            let had = steps.into_iter().take_while(|(_, has)| *has).last();
            had.map_or(Level::Portable, |(level, _)| level)
        }
        #[cfg(not(target_arch = "x86_64"))]
        Level::Portable
    }

    /// The level in use: the best one, or a lower one that the environment variable `FOVEAL_CPU`
    /// names.
    ///
    /// Panics if `FOVEAL_CPU` names no level; [`check_variable`] says so before.
    pub(crate) fn in_use() -> Level {
        static LEVEL: LazyLock<Level> = LazyLock::new(|| {
            let wanted = wanted().unwrap_or_else(|text| panic!("{text}"));
            wanted.unwrap_or(Level::best()).min(Level::best())
        });
        *LEVEL
    }

    /// Every level that this CPU has, from the lowest.
    pub(crate) fn available() -> impl Iterator<Item = Level> {
        NAMES.into_iter().map(|(level, _)| level).filter(|level| *level <= Level::best())
    }

    /// Its name, as `FOVEAL_CPU` takes it.
    pub(crate) fn name(self) -> &'static str {
        NAMES[self as usize].1
    }
}

/// Checks that the environment variable `FOVEAL_CPU` is not set, or names a level of the CPU:
/// `portable`, `avx2`, `avx512` or `avx512vbmi`. A level that this CPU lacks means its best one.
///
/// # Errors
/// One line that says what was found and which names there are.
pub fn check_variable() -> Result<(), String> {
    wanted().map(|_| ())
}

fn wanted() -> Result<Option<Level>, String> {
    match std::env::var_os("FOVEAL_CPU") {
        Some(name) => level_named(&name.to_string_lossy()).map(Some),
        None => Ok(None),
    }
}

fn level_named(name: &str) -> Result<Level, String> {
    let found = NAMES.into_iter().find(|(_, known)| *known == name);
    found.map(|(level, _)| level).ok_or_else(|| {
        let known: Vec<&str> = NAMES.iter().map(|(_, known)| *known).collect();
        format!("FOVEAL_CPU is \"{name}\", but must be one of {}", known.join(", "))
    })
}

/// `best_version!(level, LEVEL => kernel, ..., _ => kernel)`: the first kernel whose level is at
/// most `level`; list them from the highest. Panics if this CPU lacks `level`.
macro_rules! best_version {
    ($level:expr, $($needed:ident => $kernel:expr,)* _ => $portable:expr $(,)?) => {{
        let level: Level = $level;
        assert!(level <= Level::best(), "the CPU lacks {level:?}");
        match level {
            $(
                #[cfg(target_arch = "x86_64")]
                level if level >= Level::$needed => $kernel,
            )*
            _ => $portable,
        }
    }};
}
pub(super) use best_version;

/// Defines a function whose one text is compiled for every level that profits by it.
macro_rules! for_every_level {
    ($(#[$doc:meta])* $name:ident, $text:ident, ($($arg:ident: $type:ty),*) $(-> $out:ty)?) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,f16c")]
                fn avx2($($arg: $type),*) $(-> $out)? {
                    $text($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
                fn avx512($($arg: $type),*) $(-> $out)? {
                    $text($($arg),*)
                }
                match Level::in_use() {
                    // SAFETY: a level in use is never above the best one of this CPU.
                    Level::Avx512 | Level::Avx512Vbmi => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Level::Avx2 => return unsafe { avx2($($arg),*) },
                    Level::Portable => {}
                }
            }
            $text($($arg),*)
        }
    };
}
pub(super) use for_every_level;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_known_by_their_names_alone() {
        for (level, name) in NAMES {
            assert_eq!(level_named(name), Ok(level));
            assert_eq!(level.name(), name);
        }
        for name in ["", "AVX2", "avx3", "avx512 "] {
            let text = level_named(name).unwrap_err();
            assert!(text.contains(&format!("\"{name}\"")) && text.contains("avx512vbmi"), "{text}");
        }
        assert_eq!(Level::available().last(), Some(Level::best()));
    }

    #[test]
    fn a_kernel_runs_the_best_version_that_its_level_has() {
        let version = |level| best_version!(level, Avx512 => "avx512", Avx2 => "avx2", _ => "any");
        for level in Level::available() {
            let wanted = match level {
                Level::Portable => "any",
                Level::Avx2 => "avx2",
                Level::Avx512 | Level::Avx512Vbmi => "avx512",
            };
            assert_eq!(version(level), wanted);
        }
    }
}
