//! The daemon's release build.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Result, context};

/// Builds the daemon, and returns the path of its binary.
pub(crate) fn build(target: Option<&str>) -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(crate::workspace()).args([
        "build",
        "--release",
        "--package",
        "sockexec-cli",
        "--bin",
        "sockexec",
    ]);
    // The messages have the path of the binary. CARGO_TARGET_DIR and other settings may move it from the usual place.
    command.arg("--message-format=json-render-diagnostics");
    if let Some(target) = target {
        command.args(["--target", target]);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(context("cargo"))?;
    let mut binary = None;
    for line in BufReader::new(child.stdout.take().ok_or("no pipe")?).lines() {
        binary = executable(&line?).or(binary);
    }
    if !child.wait()?.success() {
        return Err("the daemon does not build".into());
    }
    Ok(binary.ok_or("cargo did not say where the daemon is")?)
}

/// The path in a message about a finished program.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let artifact = message.get("reason")?.as_str()? == "compiler-artifact";
    message.get("executable")?.as_str().filter(|_| artifact).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_program_is_in_cargos_messages() {
        let message = r#"{"reason":"compiler-artifact","target":{"name":"sockexec"},"executable":"/target/sockexec"}"#;
        assert_eq!(executable(message), Some(PathBuf::from("/target/sockexec")));
        assert_eq!(executable(r#"{"reason":"compiler-artifact","executable":null}"#), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable("no JSON"), None);
    }

    #[test]
    fn the_workspace_is_above_this_package() {
        assert!(crate::workspace().join("crates/xtask/Cargo.toml").is_file());
    }
}
