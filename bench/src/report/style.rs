//! Colours, shapes and dashes: told apart in light and dark, and by those who see few colours.

use std::fmt::Write;

/// The colours of a theme.
struct Theme {
    background: &'static str,
    ink: &'static str,
    faint: &'static str,
    grid: &'static str,
    curves: [&'static str; COLOURS],
}

const COLOURS: usize = 8;

// Each colour has a contrast of 3 or more to its background, and no two that follow each other are
// alike to eyes without red or green.
const LIGHT: Theme = Theme {
    background: "#ffffff",
    ink: "#16202c",
    faint: "#526070",
    grid: "#e3e7ec",
    curves: [
        "#0067b1", "#cf4a00", "#00805f", "#b13c8a", "#8a6a00", "#5a3fb0", "#1a8aa8", "#555b63",
    ],
};

const DARK: Theme = Theme {
    background: "#12171e",
    ink: "#eef2f6",
    faint: "#a9b4c0",
    grid: "#2b343f",
    curves: [
        "#5cb3ff", "#ff8f4d", "#3fd0a4", "#f29ad0", "#e6c84a", "#b9a5ff", "#7fdcec", "#c3c8ce",
    ],
};

/// Which backgrounds a drawing is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// The one that the reader's system asks for.
    Either,
    /// Light only.
    #[cfg(feature = "png")]
    Light,
    /// Dark only.
    #[cfg(feature = "png")]
    Dark,
}

/// The style sheet of a plot.
pub fn sheet(background: Background) -> String {
    match background {
        Background::Either => {
            let dark = rules(&DARK);
            format!("{}@media (prefers-color-scheme:dark){{{dark}}}", rules(&LIGHT))
        }
        #[cfg(feature = "png")]
        Background::Light => rules(&LIGHT),
        #[cfg(feature = "png")]
        Background::Dark => rules(&DARK),
    }
}

/// The custom properties of the page, in both themes.
pub fn properties() -> String {
    let of = |theme: &Theme| {
        let Theme { background, ink, faint, grid, .. } = theme;
        format!(":root{{--ground:{background};--ink:{ink};--faint:{faint};--grid:{grid}}}")
    };
    format!("{}@media (prefers-color-scheme:dark){{{}}}", of(&LIGHT), of(&DARK))
}

fn rules(theme: &Theme) -> String {
    let Theme { background, ink, faint, grid, curves } = theme;
    let mut rules = format!(
        ".pg{{fill:{background}}}.pi{{fill:{ink}}}.pf{{fill:{faint}}}\
         .pr{{stroke:{grid};stroke-width:1}}.pa{{stroke:{faint};stroke-width:1}}\
         .pm{{stroke:{background};stroke-width:1.2}}"
    );
    for (i, colour) in curves.iter().enumerate() {
        let _ = write!(rules, ".pl{i}{{stroke:{colour}}}.pc{i}{{fill:{colour}}}");
    }
    rules
}

/// The number of the colour of a style, in class names.
pub fn colour(style: usize) -> usize {
    style % COLOURS
}

/// The dashes of a style: the first styles have none.
pub fn dashes(style: usize) -> &'static str {
    ["none", "7 4", "2 3", "9 3 2 3"][style / COLOURS % 4]
}

/// The outline of a style's marker around the origin, about 10 pixels wide.
pub fn marker(style: usize) -> &'static str {
    const SHAPES: [&str; COLOURS] = [
        "M-4.6 0A4.6 4.6 0 1 1 4.6 0A4.6 4.6 0 1 1 -4.6 0Z",
        "M-4.2 -4.2H4.2V4.2H-4.2Z",
        "M0 -5.6L5.2 3.8H-5.2Z",
        "M0 -6L6 0L0 6L-6 0Z",
        "M0 5.6L5.2 -3.8H-5.2Z",
        "M-2 -5.4H2V-2H5.4V2H2V5.4H-2V2H-5.4V-2H-2Z",
        "M0 -5.8L5.5 -1.8L3.4 4.7H-3.4L-5.5 -1.8Z",
        "M0 -6.2L1.7 -1.7L6.2 0L1.7 1.7L0 6.2L-1.7 1.7L-6.2 0L-1.7 -1.7Z",
    ];
    SHAPES[(style + style / COLOURS) % COLOURS]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance, as accessibility guidelines define it.
    fn luminance(colour: &str) -> f64 {
        let part = |at: usize| {
            let value = u8::from_str_radix(&colour[at..at + 2], 16).unwrap();
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    }

    fn contrast(a: &str, b: &str) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn everything_stands_out_from_its_background() {
        for theme in [&LIGHT, &DARK] {
            for colour in theme.curves {
                assert!(
                    contrast(colour, theme.background) >= 3.0,
                    "{colour} on {}",
                    theme.background
                );
            }
            assert!(contrast(theme.ink, theme.background) >= 7.0);
            assert!(contrast(theme.faint, theme.background) >= 4.5);
        }
    }

    #[test]
    fn styles_differ_in_colour_or_shape() {
        let styles: std::collections::BTreeSet<_> =
            (0..32).map(|style| (colour(style), marker(style), dashes(style))).collect();
        assert_eq!(styles.len(), 32);
        assert_ne!(marker(0), marker(8));
    }
}
