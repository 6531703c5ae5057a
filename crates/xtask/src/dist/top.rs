//! The command line of `sockexec-top`, from its own source.

#[path = "../../../sockexec-tools/src/bin/sockexec-top/arguments.rs"]
mod arguments;
// What that file uses.
#[path = "../../../sockexec-tools/src/bin/sockexec-top/column.rs"]
mod column;

use clap::CommandFactory as _;

pub(super) fn command() -> clap::Command {
    arguments::Arguments::command()
}
