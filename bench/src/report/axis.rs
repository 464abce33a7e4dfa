//! Where a value lies on an axis, and which values are written beside it.

/// How an axis spreads its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0.
    Linear,
    /// By the logarithm.
    Log,
    /// By the logarithm of what is missing to 1: 0.9, 0.99 and 0.999 lie equally far apart.
    Nines,
}

/// An axis over the values of a plot, rounded outwards to values people write.
#[derive(Debug)]
pub struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    /// Where 1 lies on an axis of nines, which has no end.
    one: f64,
    /// Values to write, in rising order.
    pub ticks: Vec<f64>,
}

/// A value people write, where it lies before it is scaled to the plot, and how round it is.
#[derive(Clone, Copy)]
struct Nice {
    value: f64,
    place: f64,
    rank: u8,
}

impl Axis {
    /// The axis over `values`; a tick takes the share `room` of its length. `None` without values
    /// that it can show.
    pub fn over(
        scale: Scale,
        values: impl Iterator<Item = f64>,
        room: impl Fn(f64) -> f64,
    ) -> Option<Axis> {
        let values: Vec<f64> = values.filter(|value| shows(scale, *value)).collect();
        let min = values.iter().copied().reduce(f64::min)?;
        let max = values.iter().copied().reduce(f64::max)?;
        let below_one = values.iter().copied().filter(|value| *value < 1.0).reduce(f64::max);
        let one = nines(below_one.unwrap_or(0.9)) + 0.35;
        let nice = match scale {
            Scale::Linear => even(max),
            Scale::Log => decades(min, max),
            Scale::Nines => missing(one, max >= 1.0),
        };
        let place = |value| placed(scale, one, value);
        let least = if scale == Scale::Linear { 0.0 } else { min };
        let first = nice.iter().rposition(|nice| nice.place <= place(least) + 1e-9).unwrap_or(0);
        let last = nice.iter().position(|nice| nice.place >= place(max) - 1e-9);
        let last = last.unwrap_or(nice.len() - 1);
        // One value alone still gets an axis of some length.
        let first = if first == last { first.saturating_sub(1) } else { first };
        let last = if first == last { nice.len() - 1 } else { last };
        let (low, high) = (nice[first].place, nice[last].place);
        let ticks = apart(&nice[first..=last], |nice| room(nice.value) * (high - low));
        Some(Axis { scale, low, high, one, ticks })
    }

    /// Where `value` lies: 0 at the low end of the axis, 1 at the high end.
    pub fn place(&self, value: f64) -> f64 {
        (placed(self.scale, self.one, value) - self.low) / (self.high - self.low)
    }
}

/// Whether an axis of this scale can show `value`.
pub fn shows(scale: Scale, value: f64) -> bool {
    match scale {
        Scale::Linear => value.is_finite() && value >= 0.0,
        Scale::Log => value.is_finite() && value > 0.0,
        Scale::Nines => (0.0..=1.0).contains(&value),
    }
}

fn placed(scale: Scale, one: f64, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Log => value.log10(),
        Scale::Nines if value >= 1.0 => one,
        Scale::Nines => nines(value),
    }
}

/// How many nines `value` has: 1 for 0.9, 2 for 0.99.
fn nines(value: f64) -> f64 {
    -(1.0 - value).log10()
}

/// Round values from 0 to `max` and the next one.
fn even(max: f64) -> Vec<Nice> {
    let max = if max > 0.0 { max } else { 1.0 };
    let raw = max / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= raw * 0.999);
    let step = factor.unwrap_or(10.0) * power;
    let count = (max / step - 1e-9).ceil().max(1.0) as u32;
    let at = |i| Nice { value: f64::from(i) * step, place: f64::from(i) * step, rank: 0 };
    (0..=count).map(at).collect()
}

/// Leading digits that people write, and how round they are.
const DIGITS: [(f64, u8); 6] = [(1.0, 0), (1.5, 3), (2.0, 1), (3.0, 2), (5.0, 1), (7.0, 2)];

/// Values between the powers of 10, 1, 2 and 5 the roundest, from below `min` to above `max`.
fn decades(min: f64, max: f64) -> Vec<Nice> {
    let (from, to) = (min.log10().floor() as i32, max.log10().floor() as i32 + 1);
    let mut nice = Vec::new();
    for power in from..=to {
        for (digit, rank) in DIGITS {
            let value = digit * 10f64.powi(power);
            nice.push(Nice { value, place: value.log10(), rank });
        }
    }
    nice
}

/// Values that miss 1, 0.5, 0.3 or 0.2 of a power of ten to 1; and 1 itself if `whole`.
fn missing(one: f64, whole: bool) -> Vec<Nice> {
    let mut nice = Vec::new();
    for power in 0..15 {
        for (digit, rank) in [(1.0, 1), (0.5, 2), (0.3, 3), (0.2, 2)] {
            let miss = digit * 10f64.powi(-power);
            let place = -miss.log10();
            if !whole || place < one {
                nice.push(Nice { value: 1.0 - miss, place, rank });
            }
        }
    }
    if whole {
        // Its label comes first: a point at the end must not be taken for one at 0.999.
        nice.push(Nice { value: 1.0, place: one, rank: 0 });
    }
    nice
}

/// The values of `nice` that have their `room`, the roundest first.
fn apart(nice: &[Nice], room: impl Fn(&Nice) -> f64) -> Vec<f64> {
    let mut order: Vec<Nice> = nice.to_vec();
    order.sort_by_key(|nice| nice.rank);
    let mut kept: Vec<Nice> = Vec::new();
    for new in order {
        let free = |old: &Nice| (old.place - new.place).abs() >= (room(old) + room(&new)) / 2.0;
        // The least round are written only where there is little else.
        if kept.iter().all(free) && (new.rank < 3 || kept.len() < 3) {
            kept.push(new);
        }
    }
    kept.sort_by(|a, b| a.place.total_cmp(&b.place));
    kept.iter().map(|nice| nice.value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale, values: &[f64]) -> Axis {
        Axis::over(scale, values.iter().copied(), |_| 0.08).unwrap()
    }

    #[track_caller]
    fn near(seen: &[f64], wanted: &[f64]) {
        assert_eq!(seen.len(), wanted.len(), "{seen:?}");
        assert!(seen.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-9), "{seen:?}");
    }

    #[test]
    fn each_nine_takes_the_same_room() {
        let axis = axis(Scale::Nines, &[0.9, 0.9995, 0.999]);
        near(&axis.ticks, &[0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995]);
        let width = axis.place(0.99) - axis.place(0.9);
        assert!((axis.place(0.999) - axis.place(0.99) - width).abs() < 1e-9);
        assert!(axis.place(0.9).abs() < 1e-9 && (axis.place(0.9995) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn full_recall_has_a_place_at_the_end() {
        let close = [0.9, 0.9985, 1.0].into_iter();
        let close = Axis::over(Scale::Nines, close, |_| 0.3).unwrap();
        assert_eq!(close.ticks, [0.9, 0.99, 1.0]);
        let axis = axis(Scale::Nines, &[0.9, 0.99, 1.0]);
        assert_eq!(axis.ticks.last(), Some(&1.0));
        assert_eq!(axis.place(1.0), 1.0);
        assert!(axis.place(0.99) < 0.9);
    }

    #[test]
    fn a_single_value_has_an_axis() {
        for (scale, value) in [
            (Scale::Nines, 1.0),
            (Scale::Nines, 0.0),
            (Scale::Nines, 0.9),
            (Scale::Log, 100.0),
            (Scale::Log, 0.3),
            (Scale::Linear, 0.0),
            (Scale::Linear, 7.0),
        ] {
            let axis = axis(scale, &[value]);
            let place = axis.place(value);
            assert!((-1e-9..=1.0 + 1e-9).contains(&place), "{scale:?} {value}: {place}");
            assert!(axis.ticks.len() >= 2, "{scale:?} {value}: {:?}", axis.ticks);
        }
    }

    #[test]
    fn logarithms_are_rounded_outwards_to_one_two_five() {
        let narrow = axis(Scale::Log, &[1_300.0, 9_000.0]);
        near(&narrow.ticks, &[1e3, 2e3, 3e3, 5e3, 7e3, 10e3]);
        let wide = axis(Scale::Log, &[1_300.0, 90_000.0]);
        near(&wide.ticks, &[1e3, 2e3, 3e3, 5e3, 1e4, 2e4, 3e4, 5e4, 1e5]);
        let axis = axis(Scale::Log, &[100.0, 100_000.0]);
        assert!((axis.place(1_000.0) - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn even_axes_start_at_nothing() {
        near(&axis(Scale::Linear, &[3.0, 9.0]).ticks, &[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
    }

    #[test]
    fn ticks_keep_their_distance() {
        let axis = Axis::over(Scale::Nines, [0.5, 0.999_999].into_iter(), |_| 0.12).unwrap();
        for pair in axis.ticks.windows(2) {
            assert!(axis.place(pair[1]) - axis.place(pair[0]) > 0.119, "{:?}", axis.ticks);
        }
    }

    #[test]
    fn what_no_axis_shows_is_left_out() {
        assert!(Axis::over(Scale::Log, [0.0, -1.0, f64::NAN].into_iter(), |_| 0.1).is_none());
        assert!(Axis::over(Scale::Nines, [1.1, -0.1].into_iter(), |_| 0.1).is_none());
        assert!(Axis::over(Scale::Linear, [f64::INFINITY].into_iter(), |_| 0.1).is_none());
    }
}
