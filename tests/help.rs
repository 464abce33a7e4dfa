//! What the program says of itself, and of verbs and flags it does not have.

use crate::program::Place;

#[test]
fn shells_and_manuals_learn_the_verbs() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.ok(&format!("completions {shell}")).out;
        for word in ["foveal", "rerank-size", "min-recall", "completions"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    assert!(place.ok("man").out.contains(".TH foveal 1"));
    for verb in ["demo", "build", "search", "truth", "convert", "inspect", "check", "serve", "man"]
        .into_iter()
        .chain(["decode", "get", "upgrade"])
    {
        let page = place.ok(&format!("man {verb}")).out;
        assert!(page.contains(&format!(".TH foveal-{verb} 1")), "{verb}: {page}");
        let help = place.ok(&format!("{verb} --help")).out;
        assert!(help.contains("Usage: foveal"), "{verb}: {help}");
    }
    assert!(place.ok("--version").out.starts_with("foveal "));
}

#[test]
fn what_does_not_exist_yet_is_a_usage_error() {
    let place = Place::new();
    for line in [
        "build --no-such-flag",
        "decode --index a --hidden b --k 1 --allow a.npy --deny b.npy",
        "search --index a --queries b --k 1 --target-recall 0.9 --list-size 9",
        "build --base a.fbin --metric l2 --out b --bits 3",
        "build --base a.fbin --metric hamming --out b",
        "search --index a --queries b --k ten",
        "search --index a --queries b --k 1 --min-recall 0.5",
        "check",
        "inspect a --format xml",
        "completions tcsh",
        "fly",
    ] {
        let ran = place.run(line);
        assert_eq!(ran.code, 2, "foveal {line}: {}", ran.err);
        assert!(
            ran.err.starts_with("foveal: ") && ran.out.is_empty(),
            "foveal {line}: {}",
            ran.err
        );
    }
    assert_eq!(place.names(), [""; 0]);
}
