//! The files of a release, made from this source.

mod build;
#[expect(dead_code, reason = "only the form of the command lines is used")]
mod client;
mod completions;
#[expect(dead_code, reason = "as above")]
mod daemon;
mod exporter;
mod manual;
mod markdown;
mod packages;
mod source;
mod sums;
mod tarball;
#[cfg(test)]
mod tests;
mod tool;
mod top;

use std::fs;
use std::path::{Path, PathBuf};

use build::Build;
use packages::Packages;
use source::Release;

use crate::{Result, context, workspace};

pub(crate) const AFTER_HELP: &str = "\
Archives, packages and SHA256SUMS are written to target/dist, or the directory that --into names; manual
pages and completions always to target/dist/share. All files carry the time of the last commit, or
SOURCE_DATE_EPOCH.

Needs tar, gzip, readelf, strip and sha256sum; rustup's targets for static; cargo-deb for deb;
cargo-generate-rpm for rpm. With cargo-auditable the programs contain the list of their dependencies.

Examples:
  cargo xtask dist                   everything
  cargo xtask dist pages             manual pages and completions, below target/dist/share
  cargo xtask dist static --check    the archives, each built twice in different directories and compared";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What to make [default: all].
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Build the static programs again from a copy of the source in another directory, and compare the archives.
    #[arg(long)]
    check: bool,
    /// Targets of the static programs.
    #[arg(long, value_name = "TARGET", value_delimiter = ',', default_values = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"])]
    target: Vec<String>,
    /// Cargo's profile. Others than release are for tests of the packages.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Revision of the Debian packages and the rpms.
    #[arg(long, value_name = "N", default_value_t = 1)]
    revision: u32,
    /// Directory for the archives, the packages and their checksums [default: target/dist].
    #[arg(long, value_name = "DIRECTORY")]
    into: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Manual pages and completions.
    Pages,
    /// Static programs, in archives.
    Static,
    /// The Debian packages.
    Deb,
    /// The rpms.
    Rpm,
}

pub(crate) fn dist(options: &Options) -> Result<()> {
    let release = Release::find()?;
    let directory = workspace().join("target/dist");
    let share = directory.join("share");
    let into = match &options.into {
        // The tools below run elsewhere.
        Some(into) => std::path::absolute(into)?,
        None => directory.clone(),
    };
    fs::create_dir_all(&into).map_err(context(into.display()))?;
    let wants = |part| options.parts.is_empty() || options.parts.contains(&part);
    // Before the build, which takes minutes.
    for (part, tool) in [(Part::Deb, "cargo-deb"), (Part::Rpm, "cargo-generate-rpm")] {
        if wants(part) {
            tool::need(tool)?;
        }
    }
    pages(&share, &release)?;
    let mut made = vec![];
    let mut undone = vec![];
    if wants(Part::Static) {
        for target in &options.target {
            if !build::is_static(target) {
                return Err(format!("{target}: static programs are for a target that ends with -musl").into());
            }
            let (archive, left) = archive(options, &release, &directory, &into, target)?;
            made.push(archive);
            undone.extend(left);
        }
    }
    if wants(Part::Deb) || wants(Part::Rpm) {
        let packages = Packages { release: &release, directory: &directory, into: &into, revision: options.revision };
        let staged = packages.stage(&for_packages(options, &release, &directory)?)?;
        for package in &build::PACKAGES {
            if wants(Part::Deb) {
                made.push(packages.deb(package, &staged)?);
            }
            if wants(Part::Rpm) {
                made.push(packages.rpm(package, &staged)?);
            }
        }
    }
    sums::write(&into, &made, &release)?;
    for left in undone {
        say!("{left}\n");
    }
    Ok(())
}

/// The command lines of all programs.
fn commands() -> [clap::Command; 4] {
    [daemon::command(), client::command(), top::command(), exporter::command()]
}

/// Manual pages and completions.
fn pages(share: &Path, release: &Release) -> Result<()> {
    if share.exists() {
        fs::remove_dir_all(share).map_err(context(share.display()))?;
    }
    manual::write(&share.join("man"), release)?;
    completions::write(share)
}

/// Builds the programs for packages, with the C library of this system.
fn for_packages(options: &Options, release: &Release, directory: &Path) -> Result<PathBuf> {
    if options.profile != "release" {
        return build::as_others(&options.profile);
    }
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let profile = &options.profile;
    Build { release, source: workspace(), directory: &directory.join("build"), target: &target, profile }.run()
}

/// The archive of a target, and which check was left out.
fn archive(
    options: &Options,
    release: &Release,
    directory: &Path,
    into: &Path,
    target: &str,
) -> Result<(PathBuf, Option<String>)> {
    let share = directory.join("share");
    let profile = &options.profile;
    let build = Build { release, source: workspace(), directory: &directory.join("build"), target, profile };
    let binaries = build.run()?;
    let undone = build::try_out(&binaries, target)?;
    let archive = tarball::make(into, &binaries, &share, target, release)?;
    if options.check {
        check(&build, &binaries, &share, &archive)?;
    }
    Ok((archive, undone))
}

/// Builds again from a copy of the source elsewhere, and compares. If the files differ, the copy stays.
fn check(build: &Build<'_>, binaries: &Path, share: &Path, archive: &Path) -> Result<()> {
    let copy = tempfile::tempdir()?;
    source::copy(copy.path())?;
    let again = Build { source: copy.path(), directory: &copy.path().join("other-target"), ..*build };
    let other_binaries = again.run()?;
    let other_archive = tarball::make(copy.path(), &other_binaries, share, build.target, build.release)?;
    let pairs = build::programs().map(|name| (binaries.join(name), other_binaries.join(name)));
    let mut pairs = pairs.collect::<Vec<_>>();
    pairs.push((archive.to_owned(), other_archive));
    for (first, second) in pairs {
        if fs::read(&first)? != fs::read(&second)? {
            let kept = copy.keep();
            let second = second.display();
            return Err(format!(
                "{}: a second build gives different bytes: {second}, in {}",
                first.display(),
                kept.display()
            )
            .into());
        }
    }
    say!("{}: the second build gives the same bytes\n", build.target);
    Ok(())
}
