//! Draws bars: one a build, its name over it and its figure at its end.

use maud::{Markup, html};

use super::plot::{Head, WIDTH, framed};
use super::style;
use super::words::fitted;

/// A drawing of bars from 0.
#[derive(Clone, Debug)]
pub struct Bars {
    /// What stands over it.
    pub head: Head,
    /// What the bars show, and which end is better.
    pub name: String,
    /// How figures are written.
    pub written: fn(f64) -> String,
    /// The bars, from top to bottom.
    pub bars: Vec<Bar>,
}

/// A bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Its name.
    pub label: String,
    /// Its colour, see [`super::style`].
    pub style: usize,
    /// Its length.
    pub value: f64,
    /// Its description, in lines.
    pub told: String,
}

const LEFT: f64 = 8.0;
/// Room at the end of the longest bar for its figure.
const FIGURE: f64 = 84.0;
const STEP: f64 = 46.0;

impl Bars {
    /// The drawing as an SVG element, `sheet` inside it if it stands alone; `None` without bars.
    pub fn draw(&self, sheet: Option<&str>) -> Option<Markup> {
        let most = self.bars.iter().map(|bar| bar.value).reduce(f64::max)?;
        let long = |value: f64| {
            let share = if most > 0.0 { value / most } else { 0.0 };
            (share * (WIDTH - LEFT - FIGURE)).max(1.0)
        };
        let (head, bottom) = self.head.draw();
        let top = bottom + 36.0;
        let content = html! {
            (head)
            text class="pi" x="8" y=(bottom + 18.0) font-size="13" { (self.name) }
            @for (i, bar) in self.bars.iter().enumerate() {
                @let y = top + i as f64 * STEP;
                @let long = long(bar.value);
                text class="pi" x=(LEFT) y=(y + 13.0) font-size="13" {
                    (fitted(&bar.label, 13.0, WIDTH - 2.0 * LEFT))
                }
                rect class={ "pc" (style::colour(bar.style)) } x=(LEFT) y=(y + 19.0)
                    width=(format!("{long:.1}")) height="16" rx="2" { title { (bar.told) } }
                text class="pi" x=(format!("{:.1}", LEFT + long + 7.0)) y=(y + 31.5)
                    font-size="13" font-weight="bold" { ((self.written)(bar.value)) }
            }
        };
        let height = top + self.bars.len() as f64 * STEP + 4.0;
        Some(framed(&self.head, height, sheet, &content))
    }
}
