//! `--allow` and `--deny`: searches, and truths, of some of the rows.

use crate::program::Place;
use crate::vectors::{fbin, ibin, noise, npy};

const DIM: usize = 12;
const ROWS: u64 = 6_000;

fn keys(keys: impl Iterator<Item = u64>) -> Vec<u8> {
    let keys: Vec<u64> = keys.collect();
    let bytes: Vec<u8> = keys.iter().flat_map(|key| key.to_le_bytes()).collect();
    npy("<u8", &format!("({},)", keys.len()), &bytes)
}

#[test]
fn the_rows_that_count_are_searched_alone() {
    let place = Place::new();
    place.write("rows.fbin", fbin(DIM, &noise(ROWS as usize * DIM, 4)));
    place.write("q.fbin", fbin(DIM, &noise(30 * DIM, 5)));
    place.write("all.npy", keys((0..ROWS).map(|row| 3 * row + 10)));
    place.write("half.npy", keys((0..ROWS).filter(|row| row % 2 == 1).map(|row| 3 * row + 10)));
    place.write("few.npy", keys([10, 13, 910].into_iter()));
    place.ok("build --base rows.fbin --metric l2 --keys all.npy --out index");
    let truth = "truth --base rows.fbin --queries q.fbin --metric l2 --k 10 --keys all.npy";
    let search = "search --index index --queries q.fbin --k 10";
    for (flag, odd) in [("--allow half.npy", true), ("--deny half.npy", false)] {
        let name = if odd { "allowed" } else { "denied" };
        place.ok(&format!("{truth} {flag} --out {name}.ibin"));
        let requested = format!("{search} {flag} --truth {name}.ibin --min-recall 0.98");
        place.ok(&format!("{requested} --ids-out {name}-found.ibin"));
        let found = ibin(&place.path(&format!("{name}-found.ibin"))).keys;
        let is_odd = |key: &i32| (key - 10) / 3 % 2 == 1;
        assert!(found.iter().flatten().all(|key| is_odd(key) == odd), "{flag}");
    }
    // All there are, although fewer than k.
    place.ok(&format!("{search} --allow few.npy --ids-out few.ibin"));
    for list in ibin(&place.path("few.ibin")).keys {
        let mut found = list.clone();
        found.sort_unstable();
        assert_eq!(found, [-1, -1, -1, -1, -1, -1, -1, 10, 13, 910]);
    }
}

#[test]
fn lists_that_do_not_fit_are_refused() {
    let place = Place::new();
    place.write("rows.fbin", fbin(DIM, &noise(50 * DIM, 4)));
    place.write("q.fbin", fbin(DIM, &noise(3 * DIM, 5)));
    place.write("some.npy", keys([1, 2].into_iter()));
    place.write("other.npy", keys([1, 77].into_iter()));
    place.write("every.npy", keys(0..50));
    place.ok("build --base rows.fbin --metric l2 --out index");
    let truth = "truth --base rows.fbin --queries q.fbin --metric l2 --k 2 --out";
    place.ok(&format!("{truth} all.ibin"));
    let search = "search --index index --queries q.fbin --k 2";
    let wanted = &["other.npy: 1 of 2 keys"];
    place.refused(&format!("{search} --allow other.npy"), 65, wanted);
    place.refused(&format!("{truth} no.ibin --deny other.npy"), 65, wanted);
    place.refused(&format!("{truth} no.ibin --deny every.npy"), 65, &["leaves no row"]);
    place.refused(&format!("{search} --allow gone.npy"), 66, &["gone.npy: no such file"]);
    let both = place.run(&format!("{search} --allow some.npy --deny some.npy"));
    assert!(both.code == 2 && both.err.contains("cannot be used with '--deny"), "{}", both.err);
    let of_all = format!("{search} --deny some.npy --truth all.ibin");
    let message = ["all.ibin: holds key", "which is not allowed; wanted a truth of the allowed"];
    let all = ibin(&place.path("all.ibin")).keys;
    let nearest = all[0][0];
    place.write("nearest.npy", keys([nearest as u64].into_iter()));
    place.refused(&of_all.replace("some.npy", "nearest.npy"), 65, &message);
    let only = format!("{search} --allow some.npy --truth all.ibin");
    place.refused(&only, 65, &message);
}
