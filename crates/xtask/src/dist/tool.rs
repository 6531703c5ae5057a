//! Runs other programs.

use std::process::{Command, Stdio};

use crate::{Result, context};

/// Runs a program. Fails if the program fails.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().map_err(context(command.get_program().display()))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// The same. Returns the program's output without surrounding white space.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(context(command.get_program().display()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}: {}", output.status, words.trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Whether a program of this name is on the PATH.
pub(super) fn is_there(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

/// Fails if a program is missing, and says how Cargo installs it.
pub(super) fn need(name: &str) -> Result<()> {
    if is_there(name) { Ok(()) } else { Err(format!("{name} is not installed: cargo install --locked {name}").into()) }
}
