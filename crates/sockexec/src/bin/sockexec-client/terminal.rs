//! Our own terminal, while the program has one.

use std::io;

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

/// Our terminal passes every key on, and does nothing by itself, until this is dropped. Without a terminal as standard input it is nothing.
pub(crate) struct RawMode(Option<Termios>);

impl RawMode {
    pub(crate) fn begin() -> Self {
        let Ok(before) = tcgetattr(io::stdin()) else { return Self(None) };
        let mut raw = before.clone();
        raw.make_raw();
        // What was typed by now is for the program as well: not `Flush`.
        match tcsetattr(io::stdin(), OptionalActions::Drain, &raw) {
            Ok(()) => Self(Some(before)),
            Err(_) => Self(None),
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Drain, before);
        }
    }
}
