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

/// The size of our terminal, from the first stream that is one; 80 by 24 if none is.
pub(crate) fn size() -> WindowSize {
    let found =
        tcgetwinsize(io::stdin()).or_else(|_| tcgetwinsize(io::stdout())).or_else(|_| tcgetwinsize(io::stderr()));
    match found {
        Ok(size) => WindowSize { columns: size.ws_col, rows: size.ws_row },
        Err(_) => WindowSize { columns: 80, rows: 24 },
    }
}

/// The type of our terminal, if `TERM` has it.
pub(crate) fn kind() -> Option<OsString> {
    std::env::var_os("TERM").filter(|name| !name.is_empty())
}

/// Whether our terminal, the first stream that is one, treats its input as UTF-8.
pub(crate) fn is_utf8() -> bool {
    let modes = tcgetattr(io::stdin()).or_else(|_| tcgetattr(io::stdout())).or_else(|_| tcgetattr(io::stderr()));
    modes.is_ok_and(|modes| has_utf8(modes.input_modes))
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
const fn has_utf8(modes: InputModes) -> bool {
    modes.contains(InputModes::IUTF8)
}

/// This system has no such mode.
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
const fn has_utf8(_: InputModes) -> bool {
    false
}

pub(crate) fn is_stdin() -> bool {
    isatty(stdio::stdin())
}

/// Which keys this command keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// None: the program gets them all.
    None,
    /// Those that send signals. Nothing else can act on them until the program has started.
    Signals,
    /// All: the program's input is not this terminal.
    All,
}

/// The modes before raw mode, and the keys that raw mode leaves to this command.
struct State {
    before: Option<Termios>,
    keys: Keys,
}

static STATE: Mutex<State> = Mutex::new(State { before: None, keys: Keys::None });

/// Raw mode of our terminal, until this is dropped. Does nothing if standard input is not a terminal.
pub(crate) struct RawMode(());

impl RawMode {
    /// Call this before the program can write: its own terminal has already turned each `\n` into `\r\n`.
    /// In the background this stops the process (TTOU) until it is in the foreground.
    pub(crate) fn begin(keys: Keys) -> Self {
        let mut state = state();
        if let Ok(found) = tcgetattr(io::stdin()) {
            *state = State { before: Some(found), keys };
            state.apply();
        }
        Self(())
    }
}

/// Changes which keys this command keeps, if [`RawMode`] has begun.
pub(crate) fn keep(keys: Keys) {
    let mut state = state();
    state.keys = keys;
    // In the background this would stop the process. [`resume`] does it when it is in the foreground again.
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

/// Restores the terminal before this process stops. Call [`resume`] afterwards.
pub(crate) fn pause() {
    state().restore();
}

/// Sets raw mode again after a stop: the shell has set its own modes meanwhile.
pub(crate) fn resume() {
    let state = state();
    if is_ours() {
        state.apply();
    }
}

/// Restores the terminal before this process dies, from any thread. The lock stays held, so that raw mode cannot
/// begin again.
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
        // Not `Flush`: keys that were typed before are for the program too. Not `Drain`: it waits for output, which
        // may be stuck.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &raw);
    }

    fn restore(&self) {
        if let Some(before) = self.before.as_ref().filter(|_| is_ours()) {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Whether this process may set the modes. In the background it may not: it would stop (TTOU), and spoil the shell's
/// modes. A terminal that does not control this process is in use by no other job.
fn is_ours() -> bool {
    tcgetpgrp(io::stdin()).map_or(true, |foreground| foreground == getpgrp())
}

/// Nothing panics while it holds this lock.
fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}
