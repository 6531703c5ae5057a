//! Runs programs on behalf of processes that must not fork, over a UNIX socket.
//!
//! A process that must not fork (a web server's worker, a runtime with a huge heap, a sandboxed service)
//! asks a daemon, `sockexec`, to run a program for it. This is the client's side as a library, shaped like
//! [`std::process`], and the daemon itself, to be run inside a test or an application.
//!
//! # Running programs
//!
//! ```
//! use sockexec::Command;
//!
//! let socket = "/tmp/exec.sock";
//! # let (socket, _daemon) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/daemon.rs"));
//! let output = Command::new(&socket, "echo").args(["hello,", "world"]).output()?;
//! assert!(output.status.success());
//! assert_eq!(output.stdout, b"hello, world\n");
//!
//! // Standard input and output flow at the same time, whatever their size.
//! let megabyte = vec![b'x'; 1 << 20];
//! let output = Command::new(&socket, "cat").stdin_bytes(megabyte.clone()).output()?;
//! assert_eq!(output.stdout, megabyte);
//!
//! // A program that cannot be started ends as in a shell.
//! let output = Command::new(&socket, "no-such-program").output()?;
//! assert_eq!(output.status.code(), Some(127));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Talking to a program while it runs
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//! use sockexec::{Command, Stdio};
//!
//! let socket = "/tmp/exec.sock";
//! # let (socket, _daemon) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/daemon.rs"));
//! let mut child = Command::new(&socket, "cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
//! let mut stdin = child.stdin.take().ok_or("piped")?;
//! let mut stdout = BufReader::new(child.stdout.take().ok_or("piped")?);
//! writeln!(stdin, "ping")?;
//! let mut line = String::new();
//! stdout.read_line(&mut line)?;
//! assert_eq!(line, "ping\n");
//! drop(stdin);
//! assert!(child.wait()?.success());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where, with what, and for how long
//!
//! A method that needs [version 2](Version::Two) of the protocol asks for it; [`Command::version`] lists
//! these methods.
//!
//! ```
//! use std::time::Duration;
//! use sockexec::{Command, ErrorKind, Signal, Stdio};
//!
//! let socket = "/tmp/exec.sock";
//! # let (socket, _daemon) = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/daemon.rs"));
//! let output = Command::new(&socket, "sh")
//!     .args(["-c", "pwd; echo $GREETING >&2"])
//!     .current_dir("/")
//!     .env("GREETING", "hello")
//!     .stderr_to_stdout()
//!     .output()?;
//! assert_eq!(output.stdout, b"/\nhello\n");
//!
//! // Why there is no program is an error; how a program ended is a status.
//! let error = Command::new(&socket, "true").current_dir("/no-such-directory").status().unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::NotFound);
//! assert!(error.to_string().contains("/no-such-directory"));
//!
//! // A signal to the program's process group.
//! let mut child = Command::new(&socket, "sleep").arg("100").daemon_timeout(Duration::from_secs(50)).stdin(Stdio::null()).spawn()?;
//! println!("process {:?}", child.id());
//! child.signal(Signal::TERM)?;
//! assert_eq!(child.wait()?.signal(), Some(15));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A daemon inside
//!
//! With the feature `daemon` a test or an application runs its own daemon: `sockexec::Daemon`.
//! `examples/quickstart.rs` shows how, and the module `daemon` says what to know about it.
//!
//! # Features
//!
//! | feature | what it adds |
//! | --- | --- |
//! | none (default) | the [`client`] alone, on `std` and `rustix` |
//! | `tokio` | the client for tokio |
//! | `daemon` | the daemon |
//! | `metrics` | the status of a daemon in the text format of Prometheus |
//!
//! The programs `sockexec` and `sockexec-client` are in the crate `sockexec-cli`.
#![deny(unsafe_code)]
// On docs.rs, which builds with nightly, each item says which feature it needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod client;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(feature = "daemon")]
mod engine;
// Outside `sys`, which the client alone does without.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a system call that no safe library wraps; its block argues its soundness")]
#[path = "sys/raw/queue.rs"]
mod queue;
mod signals;
#[cfg(feature = "daemon")]
mod sys;

#[cfg(feature = "tokio")]
pub use client::tokio;
pub use client::{
    BadReply, Child, ChildHandle, ChildStderr, ChildStdin, ChildStdout, Command, CommandArgs, CommandEnvs, Error,
    ErrorCode, ErrorKind, ExitStatus, ExitStatusError, Failure, Output, PartialOutput, Signal, Stdio, Stream,
    UnknownSignal, Usage, Version, Waiting, WindowSize,
};
#[cfg(feature = "daemon")]
pub use daemon::Daemon;
#[cfg(feature = "daemon")]
pub use engine::TermSig;
#[cfg(all(feature = "daemon", any(test, fuzzing)))]
pub use engine::model;
