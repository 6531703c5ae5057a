//! What a daemon does, as a live table in the terminal.
#![forbid(unsafe_code)]

mod arguments;
mod column;
mod groups;
mod keys;
mod live;
mod snapshot;
mod table;
mod view;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::{env, iter};

use clap::Parser as _;
use rustix::stdio::{stdin, stdout};
use rustix::termios::{isatty, tcgetwinsize};
use sockexec_tools::{EXIT_SYSTEM, EXIT_USAGE, complain, exit_with, socket};

use arguments::{Arguments, NAME};
use live::Ended;
use snapshot::Source;
use table::Order;

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
    let order = Order { by: arguments.sort, reversed: arguments.reverse };
    let source = Source::new(path);
    if arguments.once {
        return once(source, order);
    }
    if !isatty(stdin()) || !isatty(stdout()) {
        complain(NAME, "standard input or output is not a terminal; --once prints the table without one");
        return ExitCode::from(EXIT_USAGE);
    }
    if env::var_os("TERM").is_some_and(|kind| kind == "dumb") {
        complain(NAME, "TERM is dumb: this terminal has no screen; --once prints the table without one");
        return ExitCode::from(EXIT_USAGE);
    }
    match live::run(source, order, arguments.interval) {
        Ok(Ended::Quit) => ExitCode::SUCCESS,
        // The terminal is restored. The parent of this process sees which signal has ended it.
        Ok(Ended::Signal(signal)) => {
            let _ = signal_hook::low_level::emulate_default_handler(signal);
            ExitCode::from(EXIT_SYSTEM)
        }
        Err(error) => {
            complain(NAME, format_args!("the terminal: {error}"));
            ExitCode::from(EXIT_SYSTEM)
        }
    }
}

fn once(mut source: Source, order: Order) -> ExitCode {
    let mut snapshot = match source.snapshot() {
        Ok(snapshot) => snapshot,
        Err(error) => {
            complain(NAME, error);
            return ExitCode::from(EXIT_SYSTEM);
        }
    };
    order.sort(&mut snapshot.rows);
    let width = width();
    let rows = snapshot.rows.iter().map(|row| table::row(row, width));
    let head = snapshot.head.iter().map(|line| table::cut(line, width));
    let mut text = String::new();
    for line in head.chain([String::new()]).chain(iter::once(table::heads(order, width))).chain(rows) {
        text.push_str(&line);
        text.push('\n');
    }
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(NAME, format_args!("cannot write to standard output: {error}"));
            ExitCode::from(EXIT_SYSTEM)
        }
    }
}

/// How wide a printed table may be. Without a terminal or `COLUMNS` it is not cut.
fn width() -> usize {
    let terminal = tcgetwinsize(stdout()).ok().map(|size| usize::from(size.ws_col));
    let told = || env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    terminal.or_else(told).filter(|columns| *columns > 0).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory as _;

    use super::arguments::{AFTER_HELP, Arguments, interval};
    use super::column::Column;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        for wrong in ["0", "0.05", "3601", "-1", "NaN", "inf", "1s", ""] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
        assert_eq!(interval("0.1"), Ok(Duration::from_millis(100)));
    }

    #[test]
    fn the_help_lists_each_column() {
        use clap::ValueEnum as _;
        for column in Column::value_variants() {
            let name = column.to_possible_value().unwrap().get_name().to_owned();
            assert!(AFTER_HELP.lines().next().unwrap().contains(&name), "{name}");
        }
    }
}
