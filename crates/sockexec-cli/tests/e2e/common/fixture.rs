//! Where the test program is, and how a test writes its steps.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::Fifo;

/// The path of `sockexec-fixture`. `cargo test` builds it. If only one target was asked for, it may
/// be missing or old, and is built here.
pub(crate) fn fixture() -> &'static str {
    static FIXTURE: OnceLock<String> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let own = env::current_exe().expect("own path");
        let profile = own.parent().and_then(Path::parent).expect("the directory of the profile");
        let path = profile.join("examples/sockexec-fixture");
        if is_old(&path) {
            build(profile);
        }
        path.into_os_string().into_string().expect("a path in UTF-8")
    })
}

#[expect(clippy::disallowed_types, reason = "times of files")]
fn is_old(binary: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|it| it.modified()).ok();
    let sources: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fixture"].iter().collect();
    let newest =
        ["program.rs", "pattern.rs", "filter.rs"].iter().filter_map(|name| modified(&sources.join(name))).max();
    modified(binary) < newest.or(Some(std::time::SystemTime::UNIX_EPOCH))
}

fn build(profile: &Path) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example", "sockexec-fixture", "--manifest-path"]);
    cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    cargo.arg("--target-dir").arg(profile.parent().expect("the target directory"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("cargo runs").success(), "the fixture does not build");
}

/// The argv of the fixture for these steps, separated by blanks. Push an argument that contains
/// blanks: `argv.push`.
pub(crate) fn steps(steps: &str) -> Vec<String> {
    std::iter::once(fixture()).chain(steps.split_whitespace()).map(str::to_owned).collect()
}

/// The argv of a leader that waits, and of its child that ignores TERM and waits too, without any
/// stream. Each holds its FIFO.
pub(crate) fn with_stubborn_child(leader: &Fifo, child: &Fifo) -> Vec<String> {
    let child = format!("spawn [ ignore TERM ; close 0 close 1 close 2 hold {} wait ]", child.path());
    steps(&format!("{child} hold {} wait", leader.path()))
}
