//! Our own terminal, while the program has one.

use std::ffi::OsString;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::getpgrp;
use rustix::stdio;
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize,
    tcsetattr,
};
use sockexec::WindowSize;

/// The size of our terminal, whichever stream is one; what terminals have been since long ago if none is.
pub(crate) fn size() -> WindowSize {
    let found =
        tcgetwinsize(io::stdin()).or_else(|_| tcgetwinsize(io::stdout())).or_else(|_| tcgetwinsize(io::stderr()));
    match found {
        Ok(size) => WindowSize { columns: size.ws_col, rows: size.ws_row },
        Err(_) => WindowSize { columns: 80, rows: 24 },
    }
}

/// What kind our terminal is, if that is known.
pub(crate) fn kind() -> Option<OsString> {
    std::env::var_os("TERM").filter(|name| !name.is_empty())
}

/// Whether our terminal, whichever stream is one, takes what is typed for UTF-8.
pub(crate) fn is_utf8() -> bool {
    let modes = tcgetattr(io::stdin()).or_else(|_| tcgetattr(io::stdout())).or_else(|_| tcgetattr(io::stderr()));
    modes.is_ok_and(|modes| has_utf8(modes.input_modes))
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
const fn has_utf8(modes: InputModes) -> bool {
    modes.contains(InputModes::IUTF8)
}

/// There is no such mode.
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
const fn has_utf8(_: InputModes) -> bool {
    false
}

pub(crate) fn is_stdin() -> bool {
    isatty(stdio::stdin())
}

/// How much of what is typed is for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// None: the program has them all.
    None,
    /// Those that make signals, until the program has started: nobody else could act on them.
    Signals,
    /// All: the program has an input of its own.
    All,
}

/// What our terminal is to be while the program has one, and what it was before.
struct State {
    before: Option<Termios>,
    keys: Keys,
}

static STATE: Mutex<State> = Mutex::new(State { before: None, keys: Keys::None });

/// Our terminal passes what the program says and what is typed on as it is, until this is dropped. Without a terminal as standard input it is
/// nothing.
pub(crate) struct RawMode(());

impl RawMode {
    /// To be called before the program may say something: its terminal has made `\r\n` of each `\n` already.
    /// In the background it stops this process (TTOU), until that is brought to the foreground.
    pub(crate) fn begin(keys: Keys) -> Self {
        let mut state = state();
        if let Ok(found) = tcgetattr(io::stdin()) {
            *state = State { before: Some(found), keys };
            state.apply();
        }
        Self(())
    }
}

/// Where [`RawMode`] has begun it goes on with these keys for us.
pub(crate) fn keep(keys: Keys) {
    let mut state = state();
    state.keys = keys;
    // In the background it would stop this process; once it is in front again [`resume`] does it.
    if is_ours() {
        state.apply();
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let mut state = state();
        state.restore();
        state.before = None;
    }
}

/// The terminal as it was before, while this process is stopped. [`resume`] is to follow.
pub(crate) fn pause() {
    state().restore();
}

/// This process goes on after a stop, and the shell has set the terminal as it likes it.
pub(crate) fn resume() {
    let state = state();
    if is_ours() {
        state.apply();
    }
}

/// Before this process dies, from any thread. Raw mode does not begin any more after that.
pub(crate) fn restore_for_good() {
    let state = state();
    state.restore();
    std::mem::forget(state);
}

impl State {
    fn apply(&self) {
        let Some(before) = &self.before else { return };
        let mut raw = before.clone();
        match self.keys {
            Keys::None => raw.make_raw(),
            Keys::Signals => {
                raw.make_raw();
                raw.local_modes |= LocalModes::ISIG;
            }
            Keys::All => raw.output_modes -= OutputModes::OPOST,
        }
        // What was typed by now is for the program as well: not `Flush`. Not `Drain` either, which waits for output, and that may be
        // stuck.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &raw);
    }

    fn restore(&self) {
        if let Some(before) = self.before.as_ref().filter(|_| is_ours()) {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Not where it is the shell's, as this process is in the background: it would stop for that (TTOU), and spoil the shell's modes.
/// A terminal that does not control this process is nobody else's.
fn is_ours() -> bool {
    tcgetpgrp(io::stdin()).map_or(true, |foreground| foreground == getpgrp())
}

/// Nothing panics that holds it.
fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}
