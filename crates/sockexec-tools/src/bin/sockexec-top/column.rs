//! The columns by name, which the command line and the table share.

use clap::ValueEnum;

/// A column, which is also an order of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Column {
    /// Number of the process.
    Pid,
    /// Whose program it is.
    User,
    /// Time since the start.
    Age,
    /// Processor time of the program's group.
    Cpu,
    /// Memory of the program's group.
    Memory,
    /// Bytes from the client.
    In,
    /// Bytes to the client.
    Out,
    /// What the connection waits for.
    State,
    /// The program and its arguments.
    Name,
}
