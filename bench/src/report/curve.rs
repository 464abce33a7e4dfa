//! Which points make one curve, what it is called and how it looks, and which of its points count.

use std::collections::BTreeSet;

/// What a curve was measured with. Points of different setups are never joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Who was measured.
    pub system: String,
    /// How: threads, reading; the same facets in the same order for all setups of a plot.
    pub facets: Vec<String>,
    /// Where, told if machines differ.
    pub machine: usize,
    /// Which version, told if nothing else differs.
    pub version: String,
}

/// One curve of a plot.
#[derive(Clone, Debug)]
pub struct Series {
    /// The name in the legend.
    pub label: String,
    /// Colour, shape and dashes, see [`super::style`].
    pub style: usize,
    /// Its points.
    pub points: Vec<Point>,
    /// The points that are joined, in order.
    pub joined: Vec<usize>,
}

/// One point of a plot.
#[derive(Clone, Debug)]
pub struct Point {
    /// Along.
    pub x: f64,
    /// Up.
    pub y: f64,
    /// The least and the most `y` of the passes.
    pub spread: Option<[f64; 2]>,
    /// Its description, in lines.
    pub told: String,
}

/// Which end of an axis is the good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The high end.
    Higher,
    /// The low end.
    Lower,
}

/// The points that no other beats in both `x` (higher is better) and `y`, by rising `x`.
pub fn pareto(points: &[Point], better: Better) -> Vec<usize> {
    let gain = |i: usize| match better {
        Better::Higher => points[i].y,
        Better::Lower => -points[i].y,
    };
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| points[b].x.total_cmp(&points[a].x).then(gain(b).total_cmp(&gain(a))));
    let mut best = f64::NEG_INFINITY;
    let mut front: Vec<usize> = Vec::new();
    for i in order {
        if gain(i) > best {
            best = gain(i);
            front.push(i);
        }
    }
    front.reverse();
    front
}

/// The names of `setups`, each with what differs between them; and what all share.
pub fn names(setups: &[Setup]) -> (Vec<String>, Vec<String>) {
    let width = setups.iter().map(|setup| setup.facets.len()).min().unwrap_or(0);
    let differs = |place: usize| setups.iter().any(|s| s.facets[place] != setups[0].facets[place]);
    let machines: BTreeSet<usize> = setups.iter().map(|setup| setup.machine).collect();
    let name = |setup: &Setup| {
        let mut parts = vec![setup.system.clone()];
        let told = (0..width).filter(|place| differs(*place));
        parts.extend(told.map(|place| setup.facets[place].clone()).filter(|f| !f.is_empty()));
        if machines.len() > 1 {
            parts.push(format!("on {}", super::grouping::letter(setup.machine)));
        }
        let twin = |other: &&Setup| {
            other.version != setup.version
                && (&other.system, &other.facets, other.machine)
                    == (&setup.system, &setup.facets, setup.machine)
        };
        if setups.iter().find(twin).is_some() {
            parts.push(setup.version.clone());
        }
        parts.join(", ")
    };
    let shared = (0..width).filter(|place| !setups.is_empty() && !differs(*place));
    let shared = shared.map(|place| setups[0].facets[place].clone()).filter(|f| !f.is_empty());
    (setups.iter().map(name).collect(), shared.collect())
}

/// Which style each setup has, on the whole page.
#[derive(Default)]
pub struct Styles {
    known: Vec<Setup>,
}

impl Styles {
    /// The style of `setup`, none that its plot has `taken`: its own, or else that of another
    /// version of it; for a setup without facets, any that readers know the system by.
    pub fn of(&mut self, setup: &Setup, taken: &[usize]) -> usize {
        let free: Vec<usize> = (0..self.known.len()).filter(|i| !taken.contains(i)).collect();
        let find = |same: &dyn Fn(&Setup) -> bool| {
            free.iter().copied().find(|style| same(&self.known[*style]))
        };
        let of_system = |known: &Setup| known.system == setup.system;
        let found = find(&|known| known == setup)
            .or_else(|| find(&|known| of_system(known) && known.facets == setup.facets))
            .or_else(|| find(&|known| of_system(known) && setup.facets.is_empty()));
        found.unwrap_or_else(|| {
            self.known.push(setup.clone());
            self.known.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(of: &[(f64, f64)]) -> Vec<Point> {
        let point = |&(x, y): &(f64, f64)| Point { x, y, spread: None, told: String::new() };
        of.iter().map(point).collect()
    }

    fn setup(system: &str, facets: &[&str], machine: usize, version: &str) -> Setup {
        let facets = facets.iter().map(|facet| facet.to_string()).collect();
        Setup { system: system.into(), facets, machine, version: version.into() }
    }

    #[test]
    fn only_points_that_none_beats_are_joined() {
        let points = points(&[(0.9, 100.0), (0.95, 50.0), (0.93, 40.0), (0.9, 90.0), (0.99, 60.0)]);
        assert_eq!(pareto(&points, Better::Higher), [0, 4]);
        assert_eq!(pareto(&points, Better::Lower), [2, 1, 4]);
        assert!(pareto(&[], Better::Higher).is_empty());
    }

    #[test]
    fn of_equal_points_one_is_joined() {
        let points = points(&[(0.9, 100.0), (0.9, 100.0), (0.8, 100.0)]);
        assert_eq!(pareto(&points, Better::Higher).len(), 1);
    }

    #[test]
    fn a_name_tells_what_differs_and_nothing_else() {
        let (names, shared) = names(&[
            setup("ours", &["1 thread", "warm"], 0, "abc"),
            setup("ours", &["1 thread", "cold"], 0, "abc"),
            setup("ours", &["1 thread", "cold"], 0, "def"),
            setup("other", &["1 thread", ""], 0, "1.0"),
        ]);
        assert_eq!(names, ["ours, warm", "ours, cold, abc", "ours, cold, def", "other"]);
        assert_eq!(shared, ["1 thread"]);
    }

    #[test]
    fn names_tell_machines_apart() {
        let setups = [setup("ours", &[], 0, "abc"), setup("other", &[], 1, "1.0")];
        assert_eq!(names(&setups).0, ["ours, on A", "other, on B"]);
    }

    #[test]
    fn a_system_keeps_its_style() {
        let mut styles = Styles::default();
        let (one, two) = (setup("s", &["1 thread"], 0, "v"), setup("s", &["2 threads"], 0, "v"));
        assert_eq!([styles.of(&one, &[]), styles.of(&two, &[0]), styles.of(&one, &[])], [0, 1, 0]);
        let (later, bare) = (setup("s", &["1 thread"], 0, "w"), setup("s", &[], 0, "v"));
        assert_eq!(styles.of(&later, &[]), 0);
        assert_eq!(styles.of(&bare, &[]), 0);
        assert_eq!(styles.of(&bare, &[0, 1]), 2);
    }
}
