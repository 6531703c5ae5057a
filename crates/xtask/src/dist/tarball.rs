//! The static programs as an archive.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::build::programs;
use super::source::Release;
use super::tool::run;
use crate::{Result, context, workspace};

const DOCUMENTS: [&str; 3] = ["LICENSE", "README.md", "CHANGELOG.md"];

/// Makes `sockexec-VERSION-TARGET.tar.gz` in a directory. The same files give the same bytes.
pub(super) fn make(into: &Path, binaries: &Path, share: &Path, target: &str, release: &Release) -> Result<PathBuf> {
    let name = format!("sockexec-{}-{target}", release.version);
    let staged = tempfile::tempdir()?;
    let root = staged.path().join(&name);
    let bin = root.join("bin");
    fs::create_dir_all(&bin)?;
    for program in programs() {
        copy(&binaries.join(program), &bin.join(program))?;
    }
    symlink("sockexec-client", bin.join("sockexec.client"))?;
    for document in DOCUMENTS {
        copy(&workspace().join(document), &root.join(document))?;
    }
    let (packaging, docs) = (workspace().join("packaging"), workspace().join("docs"));
    run(Command::new("cp").arg("-R").args([share, &packaging, &docs]).arg(&root))?;

    let archive = into.join(format!("{name}.tar"));
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=ustar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    // Independent of the umask.
    tar.arg("--mode=u+rwX,go+rX,go-w").arg(format!("--mtime=@{}", release.epoch));
    run(tar.arg("--file").arg(&archive).arg("--directory").arg(staged.path()).arg(&name))?;
    // Without the archive's name and time.
    run(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(&archive))?;
    Ok(archive.with_extension("tar.gz"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(|_| ()).map_err(context(from.display()))
}
