//! The command line of `sockexec-exporter`, from its own source.

#[path = "../../../sockexec-tools/src/bin/sockexec-exporter/arguments.rs"]
mod arguments;

use clap::CommandFactory as _;

pub(super) fn command() -> clap::Command {
    arguments::Arguments::command()
}
