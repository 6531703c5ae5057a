//! The packages for Debian and for rpm. crates/sockexec-cli/Cargo.toml lists their files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::build::PROGRAMS;
use super::source::{Release, formatted};
use super::tool::{output, run};
use crate::{Result, context, workspace};

pub(super) struct Packages<'a> {
    pub(super) release: &'a Release,
    /// target/dist, to which the metadata in Cargo.toml refers.
    pub(super) directory: &'a Path,
    pub(super) revision: u32,
}

impl Packages<'_> {
    /// Puts the programs, without symbols, where both tools look for them. Returns the target directory for the tools.
    pub(super) fn stage(&self, binaries: &Path) -> Result<PathBuf> {
        let staged = self.directory.join("staged");
        let release = staged.join("release");
        fs::create_dir_all(&release).map_err(context(release.display()))?;
        for program in PROGRAMS {
            run(Command::new("strip").arg("-o").arg(release.join(program)).arg(binaries.join(program)))?;
        }
        Ok(staged)
    }

    pub(super) fn deb(&self, staged: &Path) -> Result<PathBuf> {
        let changelog = self.directory.join("changelog.Debian");
        fs::write(&changelog, self.changelog()?).map_err(context(changelog.display()))?;
        let mut cargo = self.cargo("deb");
        cargo.args([
            "--package",
            "sockexec-cli",
            "--no-build",
            "--quiet",
            "--deb-revision",
            &self.revision.to_string(),
        ]);
        let made = output(cargo.env("CARGO_TARGET_DIR", staged).arg("--output").arg(self.directory))?;
        fs::remove_file(changelog)?;
        last_path(&made)
    }

    pub(super) fn rpm(&self, staged: &Path) -> Result<PathBuf> {
        let mut cargo = self.cargo("generate-rpm");
        let metadata = format!("version = \"{}\"\nrelease = \"{}\"", self.version(), self.revision);
        cargo.args(["--package", "crates/sockexec-cli", "--set-metadata", &metadata]);
        cargo.args(["--source-date", &self.release.epoch.to_string()]);
        run(cargo.arg("--target-dir").arg(staged).arg("--output").arg(self.directory))?;
        let name = format!("sockexec-{}-{}.{}.rpm", self.version(), self.revision, std::env::consts::ARCH);
        Ok(self.directory.join(name))
    }

    fn cargo(&self, chore: &str) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(workspace()).arg(chore).env("SOURCE_DATE_EPOCH", self.release.epoch.to_string());
        cargo
    }

    /// `4.0.0~alpha.1`, which sorts before `4.0.0`.
    fn version(&self) -> String {
        self.release.version.replacen('-', "~", 1)
    }

    /// Debian wants a changelog in its own form in each package. It names the file with the changes.
    fn changelog(&self) -> Result<String> {
        let (version, revision) = (self.version(), self.revision);
        let moment = formatted(self.release.epoch, &["-R"])?;
        Ok(format!(
            "sockexec ({version}-{revision}) unstable; urgency=medium\n\n  * What changed: /usr/share/doc/sockexec/NEWS.md\n\n \
             -- The sockexec authors <sockexec@users.noreply.github.com>  {moment}\n"
        ))
    }
}

fn last_path(printed: &str) -> Result<PathBuf> {
    printed.lines().last().map(PathBuf::from).ok_or_else(|| "cargo-deb printed no path".into())
}
