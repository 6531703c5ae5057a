//! The release: its version, and the time of all its files.

use std::process::Command;

use super::tool::{output, run};
use crate::{Result, workspace};

pub(super) struct Release {
    pub(super) version: &'static str,
    /// Seconds since 1970: `SOURCE_DATE_EPOCH`, or the time of the last commit.
    pub(super) epoch: u64,
    /// The day of that moment, in UTC: `2026-01-31`.
    pub(super) date: String,
}

impl Release {
    pub(super) fn find() -> Result<Self> {
        let text = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => text,
            Err(_) => output(Command::new("git").current_dir(workspace()).args(["log", "-1", "--format=%ct"]))
                .map_err(|error| format!("{error}; outside a Git repository set SOURCE_DATE_EPOCH"))?,
        };
        let epoch =
            text.trim().parse().map_err(|_| format!("SOURCE_DATE_EPOCH={text:?}: must be seconds since 1970"))?;
        let date = formatted(epoch, &["+%Y-%m-%d"])?;
        // The version of this crate is that of the workspace.
        Ok(Self { version: env!("CARGO_PKG_VERSION"), epoch, date })
    }

    /// The version as Debian and rpm have it: `4.1.0~beta.1` is before `4.1.0`.
    pub(super) fn in_packages(&self) -> String {
        self.version.replacen('-', "~", 1)
    }
}

/// A time as date(1) prints it.
pub(super) fn formatted(epoch: u64, format: &[&str]) -> Result<String> {
    let moment = format!("@{epoch}");
    output(Command::new("date").env("LC_ALL", "C").args(["-u", "-d", &moment]).args(format))
}

/// Copies the present files that Git does not ignore into an existing directory.
pub(super) fn copy(into: &std::path::Path) -> Result<()> {
    let script = r#"git ls-files -z --cached --others --exclude-standard -- ':!fuzz/corpus' |
        tar --null --files-from=- --ignore-failed-read --create | tar --extract --directory "$0""#;
    run(Command::new("sh").current_dir(workspace()).args(["-ec", script]).arg(into))
}
