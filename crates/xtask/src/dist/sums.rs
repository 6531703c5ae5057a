//! SHA256SUMS: the checksums of a release.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::build::{PACKAGES, is_static};
use super::source::Release;
use super::tool;
use crate::{Result, context};

/// Writes the checksums of all files of this version that are there, and prints those of what was made.
pub(super) fn write(directory: &Path, made: &[PathBuf], release: &Release) -> Result<()> {
    if made.is_empty() {
        return Ok(());
    }
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<String>>>()?;
    names.retain(|name| is_of(release, name));
    names.sort();
    let sums = tool::output(Command::new("sha256sum").current_dir(directory).arg("--").args(&names))?;
    let path = directory.join("SHA256SUMS");
    fs::write(&path, format!("{sums}\n")).map_err(context(path.display()))?;
    let made: Vec<_> = made.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    for line in sums.lines().filter(|line| line.rsplit(' ').next().is_some_and(|name| made.contains(&name))) {
        println!("{line}");
    }
    Ok(())
}

/// Whether a file of this name belongs to the release: an archive or a package of exactly this version. `4.0.0` is at the beginning of
/// `4.0.0-alpha.1`, and of `4.0.0.1` and `4.0.01` as well.
pub(super) fn is_of(release: &Release, name: &str) -> bool {
    let archive = name.strip_prefix(&format!("sockexec-{}-", release.version));
    if let Some(target) = archive.and_then(|rest| rest.strip_suffix(".tar.gz")) {
        // A pre-release would be in front of it.
        return is_static(target) && target.split('-').count() == 4 && !target.contains('.');
    }
    PACKAGES.iter().any(|package| {
        let deb = name.strip_prefix(&format!("{}_{}-", package.name, release.in_packages()));
        let deb = deb.and_then(|rest| rest.strip_suffix(".deb")?.split_once('_'));
        let rpm = name.strip_prefix(&format!("{}-{}-", package.name, release.in_packages()));
        let rpm = rpm.and_then(|rest| rest.strip_suffix(".rpm")?.split_once('.'));
        let is_word =
            |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        deb.or(rpm).is_some_and(|(revision, processor)| revision.parse::<u32>().is_ok() && is_word(processor))
    })
}
