//! Writes all files or none: each is complete under another name before any gets its own.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tempfile::{Builder, NamedTempFile};

/// A file to be.
pub struct Output {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub content: Vec<u8>,
}

/// Writes every output, replacing files of the same name.
///
/// # Errors
/// A directory cannot be made or written; a name is that of a directory. Nothing is left then.
pub fn publish(outputs: Vec<Output>) -> anyhow::Result<()> {
    let mut whole = Vec::new();
    for output in outputs {
        let written = write(&output).with_context(|| output.path.display().to_string())?;
        whole.push((written, output.path));
    }
    for (file, path) in whole {
        file.persist(&path).map_err(|e| e.error).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn write(output: &Output) -> anyhow::Result<NamedTempFile> {
    if output.path.is_dir() {
        bail!("is a directory");
    }
    let parent = output.path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut file = Builder::new()
        .prefix(".foveal-bench-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(parent.unwrap_or(Path::new(".")))?;
    file.write_all(&output.content)?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(path: PathBuf) -> Output {
        Output { path, content: b"new".to_vec() }
    }

    #[test]
    fn one_bad_name_and_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("kept"), "old").unwrap();
        std::fs::create_dir(dir.path().join("taken")).unwrap();
        for bad in ["taken", "missing/file"] {
            let names = ["kept", "fresh", bad].map(|name| output(dir.path().join(name)));
            let error = format!("{:#}", publish(names.into()).unwrap_err());
            assert!(error.contains(bad), "{error}");
            assert_eq!(std::fs::read(dir.path().join("kept")).unwrap(), b"old");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        }
        publish(vec![output(dir.path().join("kept"))]).unwrap();
        assert_eq!(std::fs::read(dir.path().join("kept")).unwrap(), b"new");
    }
}
