//! What an event is about: which connection, and what of it.

use mio::Token;

/// What of a connection an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Client,
    Stdin,
    Stdout,
    Stderr,
    Exit,
    Exec,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The daemon's own socket.
    Listener,
    /// One of the sockets that were handed over.
    Activated(usize),
    Signals,
    /// A [`super::Handle`] was used.
    Handle,
    /// The moment for a timer has come.
    Alarm,
    /// A program has come so far that something can be freed.
    Spawner,
    /// The socket file may have lost its place.
    Place,
    /// The listening socket that has lost its place.
    Retiring,
    Connection(usize, Source),
}

pub(crate) const LISTENER: Token = Token(6);
pub(crate) const SIGNALS: Token = Token(7);
pub(crate) const HANDLE: Token = Token(8);
pub(crate) const ALARM: Token = Token(9);
pub(crate) const SPAWNER: Token = Token(10);
pub(crate) const PLACE: Token = Token(11);
pub(crate) const RETIRING: Token = Token(12);

/// The token of one of the listening sockets that were handed over, counted from 0. The index is above four
/// bits, as slots are, beside a source that no connection has. Slot 0 there is the daemon's own socket.
pub(crate) fn activated(index: usize) -> Token {
    Token((index + 1) << 4 | LISTENER.0)
}

/// The slot above four bits for the source. Seven of the sources that are left over in slot 0's sixteen are
/// the daemon's own.
pub(crate) fn token(slot: usize, source: Source) -> Token {
    Token(slot << 4 | source as usize)
}

pub(crate) fn target(token: Token) -> Option<Target> {
    let slot = token.0 >> 4;
    let source = match token.0 & 15 {
        0 => Source::Client,
        1 => Source::Stdin,
        2 => Source::Stdout,
        3 => Source::Stderr,
        4 => Source::Exit,
        5 => Source::Exec,
        _ => {
            return match token {
                Token(number) if slot > 0 && number & 15 == LISTENER.0 => Some(Target::Activated(slot - 1)),
                LISTENER => Some(Target::Listener),
                SIGNALS => Some(Target::Signals),
                HANDLE => Some(Target::Handle),
                ALARM => Some(Target::Alarm),
                SPAWNER => Some(Target::Spawner),
                PLACE => Some(Target::Place),
                RETIRING => Some(Target::Retiring),
                _ => None,
            };
        }
    };
    Some(Target::Connection(slot, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_leads_back_to_what_it_was_made_of() {
        for slot in [0, 1, 2, 99, 1 << 20] {
            for source in [Source::Client, Source::Stdin, Source::Stdout, Source::Stderr, Source::Exit, Source::Exec] {
                assert_eq!(target(token(slot, source)), Some(Target::Connection(slot, source)));
            }
        }
        assert_eq!(target(LISTENER), Some(Target::Listener));
        for index in [0, 1, 1 << 20] {
            assert_eq!(target(activated(index)), Some(Target::Activated(index)));
        }
        assert_eq!(target(SIGNALS), Some(Target::Signals));
        assert_eq!(target(HANDLE), Some(Target::Handle));
        assert_eq!(target(ALARM), Some(Target::Alarm));
        assert_eq!(target(SPAWNER), Some(Target::Spawner));
        assert_eq!(target(PLACE), Some(Target::Place));
        assert_eq!(target(RETIRING), Some(Target::Retiring));
    }
}
