//! Escapes as in ssh(1): `~` and a letter at the start of a line are for this command, not for the program.
//!
//! A thread reads the keys and forwards the others, so that escapes work while the program does not read. It
//! buffers no more than a pipe holds. After a large paste that the program does not read it blocks, and only
//! signals end this command then.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::stdio;
use sockexec::{ChildHandle, ChildStdin};

/// What `~?` shows. The terminal is raw.
const LIST: &str = concat!(
    "~?\r\n",
    "sockexec-client: at the start of a line\r\n",
    "  ~.   ends this command and the program\r\n",
    "  ~^Z  stops this command, as a job\r\n",
    "  ~~   sends one ~\r\n",
    "  ~?   shows this\r\n",
);

/// How long the echo of `~.` may take.
const ECHO: Duration = Duration::from_secs(1);

const START: u8 = b'~';
const SUSPEND: u8 = 0x1a;

/// What an escape asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    End,
    Suspend,
    List,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    LineStart,
    /// After a `~` that was not forwarded yet.
    Escape,
    Within,
}

/// Removes the escapes from the keys.
struct Escapes(Place);

impl Escapes {
    const fn new() -> Self {
        Self(Place::LineStart)
    }

    /// Takes one key, and appends the keys for the program to `out`.
    fn take(&mut self, key: u8, out: &mut Vec<u8>) -> Option<Wish> {
        let place = std::mem::replace(&mut self.0, Place::Within);
        match (place, key) {
            (Place::LineStart, START) => {
                self.0 = Place::Escape;
                return None;
            }
            (Place::Escape, b'.') => return Some(Wish::End),
            (Place::Escape, SUSPEND | b'?') => {
                self.0 = Place::LineStart;
                return Some(if key == SUSPEND { Wish::Suspend } else { Wish::List });
            }
            (Place::Escape, START) | (Place::LineStart | Place::Within, _) => out.push(key),
            (Place::Escape, _) => out.extend([START, key]),
        }
        if matches!(key, b'\r' | b'\n') {
            self.0 = Place::LineStart;
        }
        None
    }

    /// The keys have ended.
    fn end(self, out: &mut Vec<u8>) {
        if self.0 == Place::Escape {
            out.push(START);
        }
    }
}

/// Forwards the keys from our standard input, a terminal, to the program's.
///
/// # Errors
/// If no thread can be started.
pub(crate) fn forward(program: ChildHandle, stdin: ChildStdin) -> io::Result<()> {
    // The thread ends with the process, or with the keys.
    thread::Builder::new().name("keys".to_owned()).spawn(move || pass_on(&program, stdin)).map(drop)
}

/// Returns when nothing more can be read, or the program takes no more.
fn pass_on(program: &ChildHandle, mut stdin: ChildStdin) {
    let mut escapes = Escapes::new();
    let (mut keys, mut out) = ([0; 4096], Vec::new());
    loop {
        let n = match rustix::io::read(stdio::stdin(), &mut keys) {
            Ok(0) => break,
            Ok(n) => n,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {
                // Another process has made it non-blocking. The next read reports any error.
                let _ = rustix::event::poll(&mut [PollFd::new(&stdio::stdin().as_fd(), PollFlags::IN)], None);
                continue;
            }
            Err(_) => break,
        };
        for &key in keys.get(..n).unwrap_or_default() {
            let Some(wish) = escapes.take(key, &mut out) else { continue };
            if wish == Wish::End {
                say_soon("~.\r\n");
                // Earlier keys are dropped: they may have no room, and waiting for it could take for ever.
                return program.disconnect();
            }
            if hand_on(&mut stdin, &mut out).is_err() {
                return;
            }
            match wish {
                Wish::Suspend => drop(rustix::process::kill_process(rustix::process::getpid(), Signal::TSTP)),
                Wish::List | Wish::End => say(LIST),
            }
        }
        if hand_on(&mut stdin, &mut out).is_err() {
            return;
        }
    }
    escapes.end(&mut out);
    let _ = hand_on(&mut stdin, &mut out);
}

fn hand_on(stdin: &mut ChildStdin, out: &mut Vec<u8>) -> io::Result<()> {
    let written = stdin.write_all(out);
    out.clear();
    written
}

/// As [`say`], but gives up if the terminal takes nothing, as on a connection that hangs: `~.` must work there too.
fn say_soon(text: &'static str) {
    let (said, was_said) = mpsc::channel();
    let tell = move || {
        say(text);
        said.send(())
    };
    if thread::Builder::new().name("notice".to_owned()).spawn(tell).is_ok() {
        let _ = was_said.recv_timeout(ECHO);
    }
}

/// Ignores errors: there is no other place to report them.
fn say(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> (Vec<u8>, Vec<Wish>) {
        let (mut escapes, mut out) = (Escapes::new(), Vec::new());
        let wishes = keys.iter().filter_map(|&key| escapes.take(key, &mut out)).collect();
        escapes.end(&mut out);
        (out, wishes)
    }

    #[test]
    fn only_at_the_start_of_a_line() {
        let cases: [(&[u8], &[u8], &[Wish]); 15] = [
            (b"ls\r", b"ls\r", &[]),
            (b"~.", b"", &[Wish::End]),
            (b"a\r~.", b"a\r", &[Wish::End]),
            (b"a\n~.", b"a\n", &[Wish::End]),
            (b"a~.", b"a~.", &[]),
            (b"~~.", b"~.", &[]),
            (b"~~~.\r", b"~~.\r", &[]),
            (b"~a~.", b"~a~.", &[]),
            (b"~\r~.", b"~\r", &[Wish::End]),
            (b"~?~.", b"", &[Wish::List, Wish::End]),
            (b"~?x", b"x", &[Wish::List]),
            (b"~\x1a~?", b"", &[Wish::Suspend, Wish::List]),
            (b"\x1a", b"\x1a", &[]),
            (b"~", b"~", &[]),
            (b"", b"", &[]),
        ];
        for (keys, out, wishes) in cases {
            assert_eq!(typed(keys), (out.to_vec(), wishes.to_vec()), "{}", keys.escape_ascii());
        }
    }
}
