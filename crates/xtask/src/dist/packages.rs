//! The packages for Debian and for rpm. The `Cargo.toml` of the crates with the programs lists their files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::build::{Package, programs};
use super::source::{Release, formatted};
use super::tool::{output, run};
use crate::{Result, context, workspace};

pub(super) struct Packages<'a> {
    pub(super) release: &'a Release,
    /// target/dist, to which the metadata in Cargo.toml refers.
    pub(super) directory: &'a Path,
    /// Where the packages go.
    pub(super) into: &'a Path,
    pub(super) revision: u32,
}

impl Packages<'_> {
    /// Puts the programs, without symbols, where both tools look for them. Returns the target directory for the tools.
    pub(super) fn stage(&self, binaries: &Path) -> Result<PathBuf> {
        let staged = self.directory.join("staged");
        let release = staged.join("release");
        fs::create_dir_all(&release).map_err(context(release.display()))?;
        for program in programs() {
            run(Command::new("strip").arg("-o").arg(release.join(program)).arg(binaries.join(program)))?;
        }
        Ok(staged)
    }

    pub(super) fn deb(&self, package: &Package, staged: &Path) -> Result<PathBuf> {
        let changelog = self.directory.join("changelog.Debian");
        fs::write(&changelog, self.changelog(package)?).map_err(context(changelog.display()))?;
        let mut cargo = self.cargo("deb");
        cargo.args(["--package", package.member, "--no-build", "--quiet"]);
        cargo.args(["--deb-revision", &self.revision.to_string()]);
        let made = output(cargo.env("CARGO_TARGET_DIR", staged).arg("--output").arg(self.into))?;
        fs::remove_file(changelog)?;
        last_path(&made)
    }

    pub(super) fn rpm(&self, package: &Package, staged: &Path) -> Result<PathBuf> {
        let mut cargo = self.cargo("generate-rpm");
        let (version, revision) = (self.release.in_packages(), self.revision);
        let metadata = format!("version = \"{version}\"\nrelease = \"{revision}\"");
        cargo.args(["--package", &format!("crates/{}", package.member), "--set-metadata", &metadata]);
        cargo.args(["--source-date", &self.release.epoch.to_string()]);
        run(cargo.arg("--target-dir").arg(staged).arg("--output").arg(self.into))?;
        Ok(self.into.join(format!("{}-{version}-{revision}.{}.rpm", package.name, std::env::consts::ARCH)))
    }

    fn cargo(&self, chore: &str) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(workspace()).arg(chore).env("SOURCE_DATE_EPOCH", self.release.epoch.to_string());
        cargo
    }

    /// Debian wants a changelog in its own form in each package. It names the file with the changes.
    fn changelog(&self, package: &Package) -> Result<String> {
        let (name, version, revision) = (package.name, self.release.in_packages(), self.revision);
        let moment = formatted(self.release.epoch, &["-R"])?;
        Ok(format!(
            "{name} ({version}-{revision}) unstable; urgency=medium\n\n  * What changed: /usr/share/doc/{name}/NEWS.md\n\n \
             -- The sockexec authors <sockexec@users.noreply.github.com>  {moment}\n"
        ))
    }
}

fn last_path(printed: &str) -> Result<PathBuf> {
    printed.lines().last().map(PathBuf::from).ok_or_else(|| "cargo-deb printed no path".into())
}
