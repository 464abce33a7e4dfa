//! Draws an SVG into pixels, with a font of its own: nothing of the system is asked for.

use anyhow::Context;
use resvg::{tiny_skia, usvg};

/// Pixels of the drawing for one of the SVG's.
const SCALE: f32 = 2.0;

/// Turns drawings into PNG.
pub struct Painter {
    options: usvg::Options<'static>,
}

impl Painter {
    /// A painter that writes in DejaVu Sans.
    pub fn new() -> Painter {
        let mut options = usvg::Options::default();
        let fonts = options.fontdb_mut();
        fonts.load_font_data(dejavu::sans_condensed::regular().to_vec());
        fonts.load_font_data(dejavu::sans_condensed::bold().to_vec());
        let family = fonts.faces().next().and_then(|face| Some(face.families.first()?.0.clone()));
        if let Some(family) = family {
            fonts.set_sans_serif_family(&family);
            options.font_family = family;
        }
        Painter { options }
    }

    /// The PNG of a whole SVG.
    ///
    /// # Errors
    /// `svg` is none, or too large.
    pub fn paint(&self, svg: &str) -> anyhow::Result<Vec<u8>> {
        let tree = usvg::Tree::from_str(svg, &self.options)?;
        let size = tree.size().to_int_size().scale_by(SCALE).context("no size")?;
        let mut pixels =
            tiny_skia::Pixmap::new(size.width(), size.height()).context("too large")?;
        let scale = tiny_skia::Transform::from_scale(SCALE, SCALE);
        resvg::render(&tree, scale, &mut pixels.as_mut());
        Ok(pixels.encode_png()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_drawn_with_no_font_of_the_system() {
        let svg = |text: &str| {
            format!(
                "<svg xmlns='http://www.w3.org/2000/svg' width='60' height='20' \
                 font-family='system-ui, sans-serif'><text x='2' y='15'>{text}</text></svg>"
            )
        };
        let painter = Painter::new();
        let empty = painter.paint(&svg("")).unwrap();
        assert!(empty.starts_with(b"\x89PNG"));
        assert_ne!(painter.paint(&svg("0.95 → µs")).unwrap(), empty);
        assert!(painter.paint("<svg").is_err());
    }
}
