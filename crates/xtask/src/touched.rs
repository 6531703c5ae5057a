//! `cargo xtask test`: the tests of the files that were touched.

use std::collections::BTreeSet;
use std::env;
use std::path::Path;
use std::process::Command;

use clap::Args;

use crate::{Result, context, workspace};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Test what changed since this revision, committed or not [default: HEAD, or HEAD~1 if nothing changed].
    #[arg(long, value_name = "REVISION")]
    since: Option<String>,

    /// Print the commands without running them.
    #[arg(long)]
    dry_run: bool,
}

/// What to run for a touched file: the first row whose path is the beginning of the file's.
struct Row {
    path: &'static str,
    /// Packages whose unit tests, integration tests and examples in documentation are run.
    packages: &'static [&'static str],
    /// Names in the end-to-end suite.
    suite: &'static [&'static str],
}

const fn row(path: &'static str, packages: &'static [&'static str], suite: &'static [&'static str]) -> Row {
    Row { path, packages, suite }
}

const LIBRARY: &str = "crates/sockexec/src/";
const SUITE: &str = "crates/sockexec-cli/tests/e2e/";

/// Paths below [`LIBRARY`]. If two rows fit, the longer path stands first.
const ROOMS: &[Row] = &[
    row("client/prometheus", &["sockexec-tools"], &["client::metrics"]),
    row("client/", &["sockexec"], &["client::"]),
    row("signals", &["sockexec"], &["version_2::", "client::"]),
    row("engine/", &["sockexec"], &["protocol::", "ends::", "version_2::"]),
    row("daemon/chatter", &[], &["chatty::"]),
    row("daemon/alarm", &[], &["chatty::", "ends::"]),
    row("daemon/connection/ahead", &[], &["version_2::window", "version_2::input"]),
    row("daemon/connection/input", &[], &["streams::", "version_2::input", "version_2::window", "hostile::"]),
    row("daemon/connection/output", &[], &["streams::", "spool::", "chatty::"]),
    row("daemon/connection/session", &[], &["version_2::terminals", "version_2::sessions", "hang_ups::"]),
    row("daemon/connection/waiting", &[], &["waiting::", "slots::"]),
    row("daemon/event_loop/accept", &[], &["socket::", "place::", "limits::"]),
    row("daemon/event_loop/waiting", &[], &["waiting::", "slots::"]),
    row("daemon/event_loop/report", &[], &["version_2::status", "client::version_2"]),
    row("daemon/status", &[], &["version_2::status", "client::version_2", "documented::"]),
    row("daemon/line", &[], &["waiting::", "slots::"]),
    row("daemon/room", &[], &["waiting::"]),
    row("daemon/memory", &[], &["waiting::"]),
    row("daemon/slots", &[], &["slots::", "waiting::"]),
    row("daemon/listener", &[], &["socket::", "place::"]),
    row("daemon/place", &[], &["place::", "socket::"]),
    row("daemon/outbox", &[], &["streams::", "spool::"]),
    row("daemon/spool", &[], &["spool::", "streams::"]),
    row("daemon/sessions", &[], &["version_2::sessions", "version_2::terminals", "hang_ups::"]),
    row("daemon/", &["sockexec"], &["programs::", "ends::", "protocol::", "shutdown::", "version_2::"]),
    row("sys/closer", &[], &["version_2::lingering", "spool::"]),
    row("sys/foreign", &[], &["version_2::lingering", "version_2::descriptors"]),
    row("sys/group", &[], &["ends::", "killed::", "shutdown::", "pid_1::"]),
    row("sys/session", &[], &["version_2::sessions", "version_2::terminals", "hang_ups::"]),
    row("sys/terminal", &[], &["version_2::terminals", "client::terminals"]),
    row("sys/watch", &[], &["place::"]),
    row("sys/socket", &[], &["socket::", "place::", "waiting::"]),
    row("sys/splice", &[], &["streams::", "version_2::input"]),
    row("sys/transfer", &[], &["streams::", "version_2::input"]),
    row(
        "sys/",
        &["sockexec"],
        &["programs::", "launch::", "version_2::starts", "killed::", "limits::", "filters::docker"],
    ),
    row("lib.rs", &["sockexec"], &["client::library"]),
];

/// Paths from the root.
const ELSEWHERE: &[Row] = &[
    row("crates/sockexec-proto/", &["sockexec-proto"], &["protocol::", "version_2::", "documented::", "client::"]),
    row("crates/sockexec-cli/src/bin/sockexec-client/", &[], &["client::"]),
    row("crates/sockexec-cli/src/bin/sockexec", &[], &["command_line::", "socket::", "limits::"]),
    row("crates/sockexec-cli/tests/fixture/", &[], &["programs::", "streams::", "ends::"]),
    row("crates/sockexec-cli/tests/e2e/common/", &[], &["programs::", "protocol::", "client::"]),
    row("crates/sockexec-cli/tests/e2e/main.rs", &[], &["protocol::"]),
    row("crates/sockexec-cli/", &[], &["command_line::"]),
    row("crates/sockexec/", &["sockexec"], &[]),
    row("crates/sockexec-tools/", &["sockexec-tools"], &[]),
    row("crates/xtask/", &["xtask"], &[]),
    row("docs/protocol.md", &["sockexec", "xtask"], &["documented::"]),
    row("docs/operations.md", &["xtask"], &["readme::"]),
    row("docs/", &["xtask"], &[]),
    row("README.md", &["xtask"], &["readme::"]),
    row("packaging/man/", &["xtask"], &[]),
    row("packaging/", &["sockexec-tools"], &["readme::", "units::"]),
    row("CHANGELOG.md", &["xtask"], &["documented::", "client::forgotten"]),
    row("CONTRIBUTING.md", &["xtask"], &[]),
    row("SECURITY.md", &["xtask"], &[]),
    row("fuzz/", &[], &["documented::every_option"]),
    row("Cargo", &["sockexec-proto", "sockexec"], &["protocol::", "programs::", "client::"]),
];

/// Runs the tests of the files that were touched.
pub(crate) fn test(options: &Options) -> Result<()> {
    let files = match &options.since {
        Some(revision) => changed(revision)?,
        None => Some(changed("HEAD")?).filter(|files| !files.is_empty()).map_or_else(|| changed("HEAD~1"), Ok)?,
    };
    let (mut packages, mut suite) = (BTreeSet::new(), BTreeSet::new());
    for file in &files {
        if let Some(module) = module_of_suite(file) {
            suite.insert(module);
        } else if let Some(row) = row_of(file) {
            packages.extend(row.packages);
            suite.extend(row.suite.iter().map(|&name| name.to_owned()));
        }
    }
    for package in packages {
        // The model's searches take a minute; one of them goes through every kind of state.
        let arguments = ["test", "--package", package, "--all-features", "--", "--skip", "engine::model::search::all_"];
        cargo(&arguments, options.dry_run)?;
    }
    if !suite.is_empty() {
        let mut arguments = vec!["test", "--package", "sockexec-cli", "--test", "e2e", "--"];
        if !suite.iter().any(|name| name.starts_with("faults::")) {
            // A name matches anywhere in a test's path, so `version_2::` would match `faults::version_2::` too.
            arguments.extend(["--skip", "faults::"]);
        }
        arguments.extend(suite.iter().map(String::as_str));
        cargo(&arguments, options.dry_run)?;
    }
    println!("The rest: cargo test --workspace --all-features");
    Ok(())
}

/// Paths from the root of files that were changed, added or removed.
fn changed(revision: &str) -> Result<Vec<String>> {
    let mut files = git(&["diff", "--name-only", revision])?;
    files.extend(git(&["ls-files", "--others", "--exclude-standard"])?);
    Ok(files)
}

fn git(arguments: &[&str]) -> Result<Vec<String>> {
    let output = Command::new("git").current_dir(workspace()).args(arguments).output().map_err(context("git"))?;
    if !output.status.success() {
        return Err(format!("git {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// The module of the suite in this file: `client::ends::` for `client/ends.rs`.
fn module_of_suite(file: &str) -> Option<String> {
    let module = file.strip_prefix(SUITE).filter(|module| !module.starts_with("common/") && *module != "main.rs")?;
    let module = Path::new(module).with_extension("");
    let names = module.iter().filter_map(|name| name.to_str()).filter(|&name| name != "mod");
    Some(names.fold(String::new(), |path, name| path + name + "::"))
}

fn row_of(file: &str) -> Option<&'static Row> {
    let (rows, path) = file.strip_prefix(LIBRARY).map_or((ELSEWHERE, file), |path| (ROOMS, path));
    // `daemon/spool` fits the file, and a directory that it may become.
    rows.iter().find(|row| path.starts_with(row.path))
}

fn cargo(arguments: &[&str], dry_run: bool) -> Result<()> {
    println!("cargo {}", arguments.join(" "));
    if dry_run {
        return Ok(());
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).current_dir(workspace()).args(arguments).status().map_err(context("cargo"))?;
    if status.success() { Ok(()) } else { Err("tests fail".into()) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn walk(directory: &Path, files: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                walk(&path, files);
            } else if let Ok(path) = path.strip_prefix(workspace()) {
                files.push(path.to_string_lossy().into_owned());
            }
        }
    }

    /// Each source file is in a row, and each row names files and tests that exist.
    #[test]
    fn the_rows_fit_the_tree() {
        let mut files = Vec::new();
        for directory in ["crates", "docs", "fuzz", "packaging"] {
            walk(&workspace().join(directory), &mut files);
        }
        files.extend(["CHANGELOG.md", "CONTRIBUTING.md", "Cargo.toml", "README.md", "SECURITY.md"].map(str::to_owned));
        let sources = files.iter().filter(|file| file.starts_with("crates/"));
        for file in sources.filter(|file| module_of_suite(file).is_none()) {
            assert!(row_of(file).is_some(), "{file} is in no row");
        }
        for (root, rows) in [(LIBRARY, ROOMS), ("", ELSEWHERE)] {
            for row in rows {
                let path = format!("{root}{}", row.path);
                assert!(files.iter().any(|file| file.starts_with(&path)), "{path} is gone");
                for name in row.suite {
                    let module = format!("{SUITE}{}", name.trim_end_matches(':').replace("::", "/"));
                    // The last part may be a test of the module before it.
                    let known = [module.as_str(), module.rsplit_once('/').map_or("", |(module, _)| module)];
                    assert!(files.iter().any(|file| known.iter().any(|known| file.starts_with(known))), "{name}");
                }
            }
        }
    }

    #[test]
    fn a_file_leads_to_its_tests() {
        let suite = |file: &str| row_of(file).map(|row| row.suite);
        assert_eq!(suite("crates/sockexec/src/daemon/spool.rs"), Some(&["spool::", "streams::"][..]));
        assert_eq!(suite("crates/sockexec-cli/src/bin/sockexec-client/main.rs"), Some(&["client::"][..]));
        assert_eq!(suite("LICENSE"), None);
        assert_eq!(module_of_suite("crates/sockexec-cli/tests/e2e/client/ends.rs").as_deref(), Some("client::ends::"));
        assert_eq!(module_of_suite("crates/sockexec-cli/tests/e2e/faults/mod.rs").as_deref(), Some("faults::"));
        assert_eq!(module_of_suite("crates/sockexec-cli/tests/e2e/common/mod.rs"), None);
    }
}
