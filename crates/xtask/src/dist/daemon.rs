//! The command line of `sockexec`, from its own source.

#[path = "../../../sockexec-cli/src/bin/sockexec/arguments.rs"]
mod arguments;

use clap::CommandFactory as _;

pub(super) fn command() -> clap::Command {
    arguments::Arguments::command()
}
