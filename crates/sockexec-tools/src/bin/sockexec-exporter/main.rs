//! The metrics of a daemon over HTTP, for Prometheus. The daemon itself has no HTTP.
//!
//! One thread does everything. Each connection is a task with one request and a time limit, so a slow or silent
//! client delays no other, and costs no thread.
#![forbid(unsafe_code)]

mod answer;
mod arguments;
mod serve;

use std::process::ExitCode;

use clap::Parser as _;
use sockexec_tools::{EXIT_SYSTEM, EXIT_USAGE, complain, exit_with, socket};

use arguments::{Arguments, NAME};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit_with(&error),
    };
    let path = match socket(arguments.socket) {
        Ok(path) => path,
        Err(words) => {
            complain(NAME, words);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(NAME, format_args!("cannot start: {error}"));
            return ExitCode::from(EXIT_SYSTEM);
        }
    };
    match runtime.block_on(serve::serve(arguments.listen, path)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(NAME, error);
            ExitCode::from(EXIT_SYSTEM)
        }
    }
}
