//! Our own terminal, while the program has one.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
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

/// The modes of our terminal to which it is to return.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Our terminal passes every key on, and does nothing by itself, until this is dropped. Without a terminal as standard input it is nothing.
pub(crate) struct RawMode(());

impl RawMode {
    pub(crate) fn begin() -> Self {
        let mut modes = before();
        if let Ok(found) = tcgetattr(io::stdin()) {
            let mut raw = found.clone();
            raw.make_raw();
            // What was typed by now is for the program as well: not `Flush`. Not `Drain` either, which waits for output, and that may
            // be stuck.
            if tcsetattr(io::stdin(), OptionalActions::Now, &raw).is_ok() {
                *modes = Some(found);
            }
        }
        Self(())
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore(&mut before());
    }
}

/// The same before this process dies, from any thread. Raw mode does not begin any more after that.
pub(crate) fn restore_for_good() {
    let mut modes = before();
    restore(&mut modes);
    std::mem::forget(modes);
}

fn restore(before: &mut Option<Termios>) {
    if let Some(modes) = before.take() {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
    }
}

/// Nothing panics that holds it.
fn before() -> MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}
