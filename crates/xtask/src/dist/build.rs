//! Builds the programs reproducibly: the same source gives the same bytes in any directory.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::source::Release;
use super::tool::{is_there, output, run};
use crate::{Result, context, workspace};

/// What is packaged together.
pub(super) struct Package {
    /// Its name in Debian and as an rpm.
    pub(super) name: &'static str,
    /// The package of Cargo that has its programs and says what else is in it.
    pub(super) member: &'static str,
    pub(super) programs: [&'static str; 2],
}

/// The archives have the programs of all of them.
pub(super) const PACKAGES: [Package; 2] = [
    Package { name: "sockexec", member: "sockexec-cli", programs: ["sockexec", "sockexec-client"] },
    Package { name: "sockexec-tools", member: "sockexec-tools", programs: ["sockexec-top", "sockexec-exporter"] },
];

pub(super) fn programs() -> impl Iterator<Item = &'static str> {
    PACKAGES.iter().flat_map(|package| package.programs)
}

pub(super) struct Build<'a> {
    pub(super) release: &'a Release,
    /// The workspace.
    pub(super) source: &'a Path,
    /// Cargo's target directory.
    pub(super) directory: &'a Path,
    pub(super) target: &'a str,
    pub(super) profile: &'a str,
}

impl Build<'_> {
    /// Builds the programs. Returns their directory.
    pub(super) fn run(&self) -> Result<PathBuf> {
        say!("building for {} from {}\n", self.target, self.source.display());
        if !is_there("cargo-auditable") {
            say!("cargo-auditable is not installed: the programs have no list of their dependencies\n");
        }
        PACKAGES.iter().try_for_each(|package| self.build(package.member))?;
        let binaries = self.directory.join(self.target).join(directory_of(self.profile));
        if is_static(self.target) {
            programs().try_for_each(|program| check_static(&binaries.join(program)))?;
        }
        Ok(binaries)
    }

    /// Each package by itself: together the daemon would be built with the features that the tools need of the library.
    fn build(&self, member: &str) -> Result<()> {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(self.source);
        // The list of dependencies goes into the programs, for `cargo audit bin`.
        if is_there("cargo-auditable") {
            cargo.arg("auditable");
        }
        cargo.args(["build", "--locked", "--package", member, "--bins", "--quiet"]);
        cargo.args(["--profile", self.profile, "--target", self.target]).arg("--target-dir").arg(self.directory);
        cargo.env("CARGO_ENCODED_RUSTFLAGS", self.flags()?).env("CARGO_INCREMENTAL", "0");
        cargo.env("SOURCE_DATE_EPOCH", self.release.epoch.to_string());
        cargo.env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
        if is_static(self.target) {
            // rustc brings it for every processor. The system's linker would differ between machines.
            let variable = format!("CARGO_TARGET_{}_LINKER", self.target.replace('-', "_").to_uppercase());
            cargo.env(variable, "rust-lld");
        }
        run(&mut cargo)
    }

    /// Removes paths of this machine from the programs, where messages of panics would have them.
    fn flags(&self) -> Result<String> {
        let home = match std::env::var_os("CARGO_HOME") {
            Some(home) => PathBuf::from(home),
            None => std::env::home_dir().unwrap_or_default().join(".cargo"),
        };
        let rustc = output(Command::new("rustc").args(["--version", "--verbose"]))?;
        let commit = rustc.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or_default();
        let library = format!("{}/lib/rustlib/src/rust", output(Command::new("rustc").args(["--print", "sysroot"]))?);
        let prefixes = [
            (self.source.display().to_string(), "/sockexec".to_owned()),
            (self.directory.display().to_string(), "/sockexec/target".to_owned()),
            (home.display().to_string(), "/cargo".to_owned()),
            (library, format!("/rustc/{commit}")),
        ];
        let flags = prefixes.map(|(from, to)| format!("--remap-path-prefix={from}={to}"));
        // Cargo splits them here.
        Ok(flags.join("\u{1f}"))
    }
}

/// Builds them as `cargo build` does, for tests: faster, as it uses earlier builds.
pub(super) fn as_others(profile: &str) -> Result<PathBuf> {
    for package in &PACKAGES {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(workspace()).args(["build", "--package", package.member, "--bins", "--quiet"]);
        run(cargo.args(["--profile", profile]))?;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    Ok(target.join(directory_of(profile)))
}

fn directory_of(profile: &str) -> &str {
    if profile == "dev" { "debug" } else { profile }
}

pub(super) fn is_static(target: &str) -> bool {
    target.ends_with("-musl")
}

/// Checks what ldd(1) would, also for another processor.
fn check_static(program: &Path) -> Result<()> {
    let headers = output(Command::new("readelf").arg("-ldW").arg(program))?;
    if headers.contains("INTERP") || headers.contains("(NEEDED)") {
        return Err(format!("{}: not statically linked:\n{headers}", program.display()).into());
    }
    Ok(())
}

/// Runs the programs as far as this machine can. `Ok` has what was left out.
pub(super) fn try_out(binaries: &Path, target: &str) -> Result<Option<String>> {
    let processor = target.split('-').next().unwrap_or_default();
    if processor == std::env::consts::ARCH {
        programs().try_for_each(|program| check_version(&mut Command::new(binaries.join(program)), program))?;
        request(binaries)?;
        return Ok(None);
    }
    let emulator =
        [format!("qemu-{processor}"), format!("qemu-{processor}-static")].into_iter().find(|name| is_there(name));
    let Some(emulator) = emulator else {
        return Ok(Some(format!("not run, as there is no qemu-{processor}: the programs for {target}")));
    };
    for program in programs() {
        check_version(Command::new(&emulator).arg(binaries.join(program)), program)?;
    }
    // The emulator of single programs lacks the calls by which the daemon starts programs.
    Ok(Some(format!("only asked for their version, in {emulator}: the programs for {target}")))
}

fn check_version(program: &mut Command, name: &str) -> Result<()> {
    let expected = format!("{name} version: {}", env!("CARGO_PKG_VERSION"));
    let found = output(program.arg("--version"))?;
    if found == expected { Ok(()) } else { Err(format!("{name} --version: {found:?}, not {expected:?}").into()) }
}

/// A daemon that is killed when this is dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended before if all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes one request to the daemon, with the client, and shows its table.
fn request(binaries: &Path) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("exec.sock");
    let program = binaries.join("sockexec");
    let started = Command::new(&program).arg(&socket).stdin(Stdio::null()).spawn();
    let mut daemon = Daemon(started.map_err(context(program.display()))?);
    let client = |arguments: &[&str]| {
        let mut client = Command::new(binaries.join("sockexec-client"));
        client.args(arguments.iter().take(1).filter(|argument| argument.starts_with('-'))).arg(&socket);
        client.args(arguments.iter().skip_while(|argument| argument.starts_with('-')));
        client
    };
    let begun = Instant::now();
    while output(&mut client(&["--ping"])).is_err() {
        if let Some(status) = daemon.0.try_wait()? {
            return Err(format!("the daemon ended: {status}").into());
        }
        if begun.elapsed() > Duration::from_secs(60) {
            return Err("the daemon does not answer".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let answer = output(&mut client(&["sh", "-c", "echo hello; exit 0"]))?;
    if answer != "hello" {
        return Err(format!("the client printed {answer:?}, not \"hello\"").into());
    }
    let table = output(Command::new(binaries.join("sockexec-top")).arg("--once").arg(&socket))?;
    if !table.starts_with(&format!("sockexec {}, ", env!("CARGO_PKG_VERSION"))) {
        return Err(format!("sockexec-top shows {table:?}").into());
    }
    if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(daemon.0.id())?) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    let status = daemon.0.wait()?;
    if status.success() { Ok(()) } else { Err(format!("the daemon ended with {status}").into()) }
}
