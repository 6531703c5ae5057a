//! `packaging/systemd`, as far as systemd's tools can check it on a machine that it has not booted.
//! `activation` and `supervised` test the daemon's side of activation and readiness.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::has;
use crate::common::binary;

const SERVICE: &str = include_str!("../../../../../packaging/systemd/sockexec.service");
const SOCKET: &str = include_str!("../../../../../packaging/systemd/sockexec.socket");

/// The exposure that `systemd-analyze security` reports, times ten. It is 49 with the settings that
/// the service leaves out for reasons in its comments. The test notices if another line is lost.
const EXPOSURE: u32 = 50;

/// Both units in a directory, with the program that was built.
fn units(service: &str) -> (TempDir, [PathBuf; 2]) {
    let directory = tempfile::tempdir().unwrap();
    assert!(service.contains("ExecStart=/usr/bin/sockexec "));
    let program = fs::canonicalize(binary()).unwrap();
    let service = service.replace("/usr/bin/sockexec", program.to_str().expect("UTF-8"));
    let paths = ["sockexec.service", "sockexec.socket"].map(|name| directory.path().join(name));
    fs::write(&paths[0], service).unwrap();
    fs::write(&paths[1], SOCKET).unwrap();
    (directory, paths)
}

/// Runs systemd-analyze(1), which prints nothing about correct units. Returns whether it succeeded,
/// and its output.
fn analyze(arguments: &[&str], units: &[PathBuf]) -> (bool, String) {
    let mut command = std::process::Command::new("systemd-analyze");
    let output = command.args(arguments).args(units).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn the_units_are_right() {
    if !has("systemd-analyze", "--version") {
        return;
    }
    let (_directory, paths) = units(SERVICE);
    assert_eq!(analyze(&["verify", "--man=no"], &paths), (true, String::new()));
    // It notices an error, so its silence is worth something.
    let (_directory, paths) = units(&SERVICE.replace("KillMode=mixed", "KillMode=mixt"));
    let (_, said) = analyze(&["verify", "--man=no"], &paths);
    assert!(said.contains("kill mode"), "{said}");
}

#[test]
fn the_service_is_hardened() {
    if !has("systemd-analyze", "--version") {
        return;
    }
    let threshold = format!("--threshold={EXPOSURE}");
    let arguments = ["security", "--offline=true", "--no-pager", &threshold];
    let (_directory, [service, _]) = units(SERVICE);
    let (good, said) = analyze(&arguments, &[service]);
    assert!(good, "{said}");
    let (_directory, [service, _]) = units(&SERVICE.replace("CapabilityBoundingSet=\n", ""));
    let (good, said) = analyze(&arguments, &[service]);
    assert!(!good, "{said}");
}

/// The service says what it leaves out because programs need it.
#[test]
fn what_harms_programs_is_left_out_with_a_reason() {
    let lines = || SERVICE.lines().map(str::trim);
    for option in ["RestrictNamespaces=", "MemoryDenyWriteExecute=", "SystemCallFilter=", "PrivateTmp=", "ProtectProc="]
    {
        assert!(!lines().any(|line| line.starts_with(option)), "{option} is there");
        assert!(lines().any(|line| line.starts_with('#') && line.contains(option)), "{option} is not argued");
    }
}
