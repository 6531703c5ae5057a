//! The command line of `sockexec-client`, from its own source.

#[path = "../../../sockexec-cli/src/bin/sockexec-client/arguments.rs"]
mod arguments;
// Modules that it uses.
#[path = "../../../sockexec-cli/src/bin/sockexec-client/stdin.rs"]
mod stdin;
#[path = "../../../sockexec-cli/src/bin/sockexec-client/terminal.rs"]
mod terminal;

use clap::CommandFactory as _;

pub(super) fn command() -> clap::Command {
    arguments::Arguments::command()
}
