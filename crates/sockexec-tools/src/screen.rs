//! The terminal as a full screen, and its restoration.

use std::io::{self, Stdout, Write as _};
use std::ops::{Deref, DerefMut};
use std::panic;
use std::sync::{Mutex, Once, PoisonError};

use ratatui::Terminal;
use ratatui::backend::TermionBackend;
use ratatui::termion::cursor::{Hide, Show};
use ratatui::termion::screen::{ToAlternateScreen, ToMainScreen};
use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// The modes to restore; `None`: there is nothing to restore. Not a field of [`Screen`]: a panic in a release build
/// drops nothing, and the panic hook must find them.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal at standard input and output, in raw mode and on its alternate screen. It is restored when this is
/// dropped, and on a panic.
#[derive(Debug)]
pub struct Screen(Terminal<TermionBackend<Stdout>>);

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// If standard input or output is not a terminal, or cannot be written to.
    pub fn new() -> io::Result<Self> {
        static HOOKED: Once = Once::new();
        HOOKED.call_once(|| {
            let usual = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                // First, or the message of the panic would vanish with the alternate screen.
                let _ = restore();
                usual(info);
            }));
        });
        let screen = Self(Terminal::new(TermionBackend::new(io::stdout()))?);
        take()?;
        Ok(screen)
    }

    /// Takes the terminal again after a stop: the shell has set its own modes meanwhile.
    ///
    /// # Errors
    /// As [`Screen::new`].
    pub fn resume(&mut self) -> io::Result<()> {
        take()?;
        self.redraw()
    }

    /// Makes the next [`draw`](Terminal::draw) redraw everything.
    ///
    /// Rejected: [`Terminal::clear`] asks the terminal where its cursor is, and reads the answer from among the keys.
    ///
    /// # Errors
    /// If the terminal cannot be written to.
    pub fn redraw(&mut self) -> io::Result<()> {
        let size = self.0.size()?;
        self.0.resize(size.into())
    }

    /// Gives the terminal back until [`Screen::resume`].
    ///
    /// # Errors
    /// If it cannot be written to.
    pub fn suspend(&mut self) -> io::Result<()> {
        restore()
    }
}

impl Deref for Screen {
    type Target = Terminal<TermionBackend<Stdout>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Screen {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = restore();
    }
}

fn take() -> io::Result<()> {
    let modes = tcgetattr(stdin())?;
    let mut raw = modes.clone();
    raw.make_raw();
    // Saved before anything is changed. If there are saved modes already, the present ones are ours.
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(modes);
    tcsetattr(stdin(), OptionalActions::Now, &raw)?;
    let mut stdout = io::stdout().lock();
    write!(stdout, "{ToAlternateScreen}{Hide}")?;
    stdout.flush()
}

/// Restores the modes alone, before this process ends. Unlike all else here, it does not wait for a terminal that
/// takes no output.
pub fn restore_modes() {
    if let Some(modes) = &*BEFORE.lock().unwrap_or_else(PoisonError::into_inner) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, modes);
    }
}

/// Does nothing if the terminal is restored already.
fn restore() -> io::Result<()> {
    let Some(modes) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
    // The modes first: setting them does not wait for a reader at the other end.
    let set = tcsetattr(stdin(), OptionalActions::Now, &modes);
    let mut stdout = io::stdout().lock();
    write!(stdout, "{ToMainScreen}{Show}")?;
    stdout.flush()?;
    Ok(set?)
}
