//! `foveal-bench fetch`: a public data set, from where it is published.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use foveal_datasets::catalog::{self, SetFile};
use foveal_datasets::download::{FirstRows, Wanted, fetch};
use indicatif::{ProgressBar, ProgressStyle};

/// Fetch a public data set; fetched again, it goes on where it stopped.
#[derive(Args)]
pub struct FetchArgs {
    /// Which one, such as sift-128-euclidean or bigann-10M
    #[arg(value_parser = named)]
    name: &'static catalog::PublicSet,
    /// Where to put it
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

fn named(name: &str) -> Result<&'static catalog::PublicSet, String> {
    let known = || catalog::SETS.iter().map(|set| set.name).collect::<Vec<_>>().join(", ");
    catalog::named(name).ok_or_else(|| format!("wanted one of {}", known()))
}

/// Fetches every file of the set that is not there yet.
///
/// # Errors
/// A server that cannot be reached, refuses or breaks off; a checksum that differs; a directory
/// that cannot be written.
pub fn run(args: &FetchArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.dir).with_context(|| args.dir.display().to_string())?;
    for file in args.name.files() {
        let path = args.dir.join(&file.name);
        if path.exists() {
            println!("{}: is there already", path.display());
        } else {
            one(&file, &path)?;
        }
    }
    Ok(())
}

fn one(file: &SetFile, path: &Path) -> anyhow::Result<()> {
    let bar = ProgressBar::no_length();
    let template = "  {msg} {wide_bar:.dim} {bytes} / {total_bytes}  {bytes_per_sec}  {eta} left ";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━━─"));
    }
    bar.set_message(file.name.clone());
    let mut started = false;
    let mut tell = |done: u64, total: Option<u64>| {
        if let (false, Some(total)) = (started, total) {
            // What was there before is no part of the speed.
            bar.set_length(total);
            bar.set_position(done);
            bar.reset_eta();
        }
        started = true;
        bar.set_position(done);
    };
    let first = file.first.map(|(rows, bytes)| FirstRows { rows, bytes });
    let wanted = Wanted { url: file.url, sha256: file.sha256, first };
    let fetched = fetch(&wanted, path, &mut tell);
    bar.finish_and_clear();
    let fetched = fetched?;
    let compared = if file.sha256.is_some() { "as known" } else { "computed; none is known" };
    println!(
        "{}: {} bytes, SHA-256 {} ({compared})",
        path.display(),
        fetched.bytes,
        fetched.sha256
    );
    Ok(())
}
