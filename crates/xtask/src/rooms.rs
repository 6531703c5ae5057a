//! Which room of the source imports which: the picture in docs/architecture.md.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::{Result, context, workspace};

/// A room: its name and purpose for the picture, its directory or file, and the paths by which others import it.
struct Room {
    name: &'static str,
    about: &'static str,
    path: &'static str,
    imported_as: &'static [&'static str],
}

/// From the top of the picture to its bottom.
const ROOMS: &[Room] = &[
    Room {
        name: "sockexec",
        about: "arguments, log, exit code",
        path: "crates/sockexec-cli/src/bin/sockexec",
        imported_as: &[],
    },
    Room {
        name: "sockexec-client",
        about: "arguments, terminal, signals, exit code",
        path: "crates/sockexec-cli/src/bin/sockexec-client",
        imported_as: &[],
    },
    Room {
        name: "sockexec-tools",
        about: "top and exporter: a screen, HTTP",
        path: "crates/sockexec-tools/src",
        imported_as: &[],
    },
    Room {
        name: "client",
        about: "std::process over the socket, blocking and for tokio",
        path: "crates/sockexec/src/client",
        imported_as: &["crate::client", "sockexec::Command", "sockexec::client"],
    },
    Room {
        name: "daemon",
        about: "event loop, connections, slots",
        path: "crates/sockexec/src/daemon",
        imported_as: &["crate::daemon", "sockexec::Daemon"],
    },
    Room {
        name: "engine",
        about: "one connection as a state machine, no system call",
        path: "crates/sockexec/src/engine",
        imported_as: &["crate::engine"],
    },
    Room {
        name: "sys",
        about: "start, signal and wait for programs, move bytes",
        path: "crates/sockexec/src/sys",
        imported_as: &["crate::sys"],
    },
    Room {
        name: "sockexec-proto",
        about: "the wire: bytes in, bytes out",
        path: "crates/sockexec-proto/src",
        imported_as: &["sockexec_proto"],
    },
];

/// The rooms and their imports, in the language of dot(1).
pub(crate) fn graph() -> Result<String> {
    let mut graph = String::from(
        "// Made by `cargo xtask rooms`.\ndigraph rooms {\n    node [shape=box, fontname=\"sans-serif\"];\n",
    );
    for room in ROOMS {
        let _ = writeln!(graph, "    \"{0}\" [label=\"{0}\\n{1}\"];", room.name, room.about);
    }
    for room in ROOMS {
        let mut imports = BTreeSet::new();
        collect(&workspace().join(room.path), room, &mut imports)?;
        for import in imports {
            let _ = writeln!(graph, "    \"{}\" -> \"{import}\";", room.name);
        }
    }
    Ok(graph + "}\n")
}

/// Collects the rooms that the sources at `path` import: the directory, and the file of the same name.
fn collect(path: &Path, room: &Room, imports: &mut BTreeSet<&'static str>) -> Result<()> {
    let file = path.with_extension("rs");
    if file.is_file() {
        collect_file(&file, room, imports)?;
    }
    if !path.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(context(path.display()))? {
        let entry = entry?.path();
        if entry.is_dir() {
            collect(&entry, room, imports)?;
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            collect_file(&entry, room, imports)?;
        }
    }
    Ok(())
}

fn collect_file(file: &Path, room: &Room, imports: &mut BTreeSet<&'static str>) -> Result<()> {
    let source = fs::read_to_string(file).map_err(context(file.display()))?;
    // Comments may name any room.
    for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
        // `use sockexec::{Command, Daemon};` imports both.
        let line = line.replace("sockexec::{", "sockexec::");
        for other in ROOMS.iter().filter(|other| other.name != room.name) {
            let names = other.imported_as.iter();
            if names.clone().any(|name| line.contains(name)) {
                imports.insert(other.name);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The picture is drawn from this file: `cargo xtask rooms >docs/architecture.dot`, then `just picture`.
    #[test]
    fn the_picture_shows_the_imports() {
        let drawn = fs::read_to_string(workspace().join("docs/architecture.dot")).unwrap();
        assert_eq!(drawn, graph().unwrap());
    }

    #[test]
    fn the_files_that_the_page_names_exist() {
        let page = fs::read_to_string(workspace().join("docs/architecture.md")).unwrap();
        let names: Vec<&str> =
            page.split('`').skip(1).step_by(2).filter(|name| name.strip_suffix(".rs").is_some()).collect();
        assert!(names.len() > 10, "{names:?}");
        let roots = ["", "crates/sockexec/src", "crates/sockexec/src/daemon"];
        for name in names {
            assert!(roots.iter().any(|root| workspace().join(root).join(name).is_file()), "{name}");
        }
    }
}
