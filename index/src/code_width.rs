//! How many bits a dimension of a code has: the one list of widths.

use std::fmt;

/// The width of codes. A wider one tells more rows apart and takes more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CodeWidth {
    /// Two bits, along the leading axes where a line of cache holds no more.
    Two,
    /// Four bits: the default.
    Four,
    /// Four bits, and one that walks do without.
    Five,
    /// Four bits, and two that walks do without.
    Six,
    /// Eight bits.
    Eight,
    /// Whole rows, as f32.
    Whole,
}

impl CodeWidth {
    /// Every width, the narrowest first.
    pub const ALL: [CodeWidth; 6] = [
        CodeWidth::Two,
        CodeWidth::Four,
        CodeWidth::Five,
        CodeWidth::Six,
        CodeWidth::Eight,
        CodeWidth::Whole,
    ];

    /// Its bits a dimension, and those as its name on the command line.
    fn bits_and_name(self) -> (u8, &'static str) {
        match self {
            CodeWidth::Two => (2, "2"),
            CodeWidth::Four => (4, "4"),
            CodeWidth::Five => (5, "5"),
            CodeWidth::Six => (6, "6"),
            CodeWidth::Eight => (8, "8"),
            CodeWidth::Whole => (32, "32"),
        }
    }

    /// Its bits a dimension, as the manifest has them.
    pub fn bits(self) -> u8 {
        self.bits_and_name().0
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        self.bits_and_name().1
    }

    /// The width of so many bits.
    pub fn of_bits(bits: u8) -> Option<CodeWidth> {
        CodeWidth::ALL.into_iter().find(|width| width.bits() == bits)
    }

    /// Extra bits a dimension, in a file of their own: `finer.bin`.
    pub fn extra_bits(self) -> u8 {
        match self {
            CodeWidth::Five => 1,
            CodeWidth::Six => 2,
            CodeWidth::Two | CodeWidth::Four | CodeWidth::Eight | CodeWidth::Whole => 0,
        }
    }

    /// The bits of all widths, as messages name them.
    pub fn in_words() -> String {
        let [rest @ .., last] = CodeWidth::ALL.map(CodeWidth::name);
        format!("{} or {last}", rest.join(", "))
    }
}

impl fmt::Display for CodeWidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_name_widths() {
        assert!(CodeWidth::ALL.is_sorted());
        for width in CodeWidth::ALL {
            assert_eq!(CodeWidth::of_bits(width.bits()), Some(width));
            assert_eq!(width.to_string(), width.bits().to_string());
        }
        assert_eq!(CodeWidth::of_bits(3), None);
        assert_eq!(CodeWidth::in_words(), "2, 4, 5, 6, 8 or 32");
    }
}
