//! Draws curves: one SVG that needs nothing around it but the style sheet of [`super::style`].

use maud::{Markup, PreEscaped, html};

use super::axis::{Axis, Scale};
use super::curve::{Better, Series};
use super::style;
use super::words::{broken, fitted, width};

/// Pixels of every drawing from left to right; a phone shows most of them.
pub const WIDTH: f64 = 450.0;

const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 26.0;
const TALL: f64 = 270.0;
const SMALL: f64 = 13.0;

/// What stands over a drawing.
#[derive(Clone, Debug)]
pub struct Head {
    /// The name of its file, without ending.
    pub slug: String,
    /// In large letters.
    pub title: String,
    /// The data, and what all curves share.
    pub parts: Vec<String>,
}

/// How an axis is drawn.
#[derive(Clone, Debug)]
pub struct Along {
    /// What it shows.
    pub name: String,
    /// How it spreads values.
    pub scale: Scale,
    /// How its values are written.
    pub written: fn(f64) -> String,
    /// The good end, where there is one.
    pub better: Option<Better>,
}

/// A drawing of curves.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What stands over it.
    pub head: Head,
    /// The axis along.
    pub x: Along,
    /// The axis up.
    pub y: Along,
    /// The curves; points that an axis cannot show are left out beforehand.
    pub series: Vec<Series>,
}

/// Where values lie on the canvas.
struct Canvas {
    x: Axis,
    y: Axis,
    top: f64,
}

impl Canvas {
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let along = LEFT + self.x.place(x) * (RIGHT - LEFT);
        (along, self.top + (1.0 - self.y.place(y)) * TALL)
    }
}

impl Plot {
    /// The drawing as an SVG element, `sheet` inside it if it stands alone; `None` without points.
    pub fn draw(&self, sheet: Option<&str>) -> Option<Markup> {
        let all = || self.series.iter().flat_map(|series| &series.points);
        let spread = all().flat_map(|point| point.spread.into_iter().flatten());
        let long = |value| (width(&(self.x.written)(value), SMALL) + 6.0) / (RIGHT - LEFT);
        let x = Axis::over(self.x.scale, all().map(|point| point.x), long)?;
        let y = Axis::over(self.y.scale, all().map(|point| point.y).chain(spread), |_| 0.07)?;
        let (head, bottom) = self.head.draw();
        let canvas = Canvas { x, y, top: bottom + 34.0 };
        let (legend, height) = self.legend(canvas.top + TALL + 62.0);
        let content = html! {
            (head)
            (self.axes(&canvas))
            @for draw in [rest, line, markers] {
                @for (i, series) in self.series.iter().enumerate() {
                    g data-curve=(i) { (draw(series, &canvas)) }
                }
            }
            (legend)
        };
        Some(framed(&self.head, height, sheet, &content))
    }

    fn axes(&self, canvas: &Canvas) -> Markup {
        let (top, base) = (canvas.top, canvas.top + TALL);
        html! {
            @for tick in &canvas.y.ticks {
                @let y = canvas.at(0.5, *tick).1;
                path class="pr" d=(format!("M{LEFT} {y:.1}H{RIGHT}")) {}
                text class="pf" x=(LEFT - 7.0) y=(format!("{:.1}", y + 4.5)) font-size=(SMALL)
                    text-anchor="end" { ((self.y.written)(*tick)) }
            }
            @for tick in &canvas.x.ticks {
                @let x = canvas.at(*tick, 1.0).0;
                path class="pr" d=(format!("M{x:.1} {top}V{base}")) {}
                text class="pf" x=(format!("{x:.1}")) y=(base + 18.0) font-size=(SMALL)
                    text-anchor="middle" { ((self.x.written)(*tick)) }
            }
            path class="pa" fill="none" d=(format!("M{LEFT} {top}V{base}H{RIGHT}")) {}
            text class="pi" x="8" y=(top - 13.0) font-size=(SMALL) { (self.y.told("↑", "↓")) }
            text class="pi" x=(RIGHT) y=(base + 40.0) font-size=(SMALL) text-anchor="end" {
                (self.x.told("→", "←"))
            }
        }
    }

    /// The legend from `top` on, and where it ends.
    fn legend(&self, top: f64) -> (Markup, f64) {
        let longest = self.series.iter().map(|s| width(&s.label, SMALL)).fold(0.0, f64::max);
        let columns = if longest <= WIDTH / 2.0 - 56.0 { 2 } else { 1 };
        let room = WIDTH / columns as f64 - 50.0;
        let place = |i: usize| {
            (14.0 + (i % columns) as f64 * WIDTH / 2.0, top + (i / columns) as f64 * 22.0)
        };
        let drawn = html! {
            @for (i, series) in self.series.iter().enumerate() {
                @let (x, y) = place(i);
                @let style = series.style;
                g data-name=(i) {
                    path class={ "pl" (style::colour(style)) } fill="none" stroke-width="2.4"
                        stroke-dasharray=(style::dashes(style)) d=(format!("M{x} {y}h26")) {}
                    path class={ "pm pc" (style::colour(style)) } d=(style::marker(style))
                        transform=(format!("translate({} {y})", x + 13.0)) {}
                    text class="pi" x=(x + 34.0) y=(y + 4.5) font-size=(SMALL) {
                        (fitted(&series.label, SMALL, room))
                    }
                }
            }
        };
        (drawn, top + self.series.len().div_ceil(columns) as f64 * 22.0)
    }
}

impl Along {
    fn told(&self, up: &str, down: &str) -> String {
        match self.better {
            Some(Better::Higher) => format!("{}, higher is better {up}", self.name),
            Some(Better::Lower) => format!("{}, lower is better {down}", self.name),
            None => self.name.clone(),
        }
    }
}

impl Head {
    /// The words, and where they end.
    pub fn draw(&self) -> (Markup, f64) {
        let lines = broken(&self.parts, SMALL, WIDTH - 24.0);
        let drawn = html! {
            text class="pi" x="8" y="26" font-size="18" font-weight="bold" {
                (fitted(&self.title, 18.0, WIDTH - 16.0))
            }
            @for (i, line) in lines.iter().enumerate() {
                text class="pf" x="8" y=(46 + 18 * i) font-size=(SMALL) { (line) }
            }
        };
        (drawn, 34.0 + 18.0 * lines.len() as f64)
    }
}

/// The element around `content`.
pub fn framed(head: &Head, height: f64, sheet: Option<&str>, content: &Markup) -> Markup {
    let label = format!("{}: {}", head.title, head.parts.join(", "));
    // What stands alone has a size of its own; on the page it takes the room there is.
    let size = sheet.map(|_| (WIDTH * 1.5, height * 1.5));
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {WIDTH} {height}"))
            width=[size.map(|size| size.0)] height=[size.map(|size| size.1)]
            role="img" aria-label=(label) font-family="system-ui, sans-serif" {
            @if let Some(sheet) = sheet { style { (PreEscaped(sheet)) } }
            rect class="pg" width=(WIDTH) height=(height) rx="6" {}
            (content)
        }
    }
}

/// Points that others beat, and the spread of those that none beats.
fn rest(series: &Series, canvas: &Canvas) -> Markup {
    let colour = style::colour(series.style);
    let beaten = |i: &usize| !series.joined.contains(i);
    html! {
        @for point in (0..series.points.len()).filter(beaten).map(|i| &series.points[i]) {
            @let (x, y) = canvas.at(point.x, point.y);
            circle class={ "pc" (colour) } cx=(format!("{x:.1}")) cy=(format!("{y:.1}")) r="3"
                opacity="0.4" { title { (point.told) } }
        }
        @for point in series.joined.iter().map(|i| &series.points[*i]) {
            @if let Some([low, high]) = point.spread {
                @let (x, y) = canvas.at(point.x, low);
                path class={ "pl" (colour) } stroke-width="1.4" opacity="0.55"
                    d=(format!("M{x:.1} {y:.1}V{:.1}", canvas.at(point.x, high).1)) {}
            }
        }
    }
}

fn line(series: &Series, canvas: &Canvas) -> Markup {
    let places = series.joined.iter().map(|i| &series.points[*i]);
    let steps: Vec<String> = places
        .map(|point| canvas.at(point.x, point.y))
        .map(|(x, y)| format!("{x:.1} {y:.1}"))
        .collect();
    html! {
        @if steps.len() > 1 {
            path class={ "pl" (style::colour(series.style)) } fill="none" stroke-width="2.4"
                stroke-linejoin="round" stroke-dasharray=(style::dashes(series.style))
                d=(format!("M{}", steps.join("L"))) {}
        }
    }
}

fn markers(series: &Series, canvas: &Canvas) -> Markup {
    html! {
        @for point in series.joined.iter().map(|i| &series.points[*i]) {
            @let (x, y) = canvas.at(point.x, point.y);
            path class={ "pm pc" (style::colour(series.style)) } d=(style::marker(series.style))
                transform=(format!("translate({x:.1} {y:.1})")) { title { (point.told) } }
        }
    }
}
