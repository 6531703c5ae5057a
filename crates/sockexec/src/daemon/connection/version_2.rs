//! What only clients of version 2 ask for.

use mio::Interest;

use super::{Connection, Context};
use crate::daemon::token::{Source, token};
use crate::sys::transfer::Passed;

/// How many descriptors a request can come with. If there are more, none is kept: they would count against
/// the daemon's limit for as long as the request takes to arrive.
const DESCRIPTORS: usize = 3;

impl Connection {
    /// Takes descriptors that came with the client's bytes.
    pub(super) fn take_descriptors(&mut self, cx: &Context<'_>, passed: Passed) {
        let Passed { descriptors, lost } = passed;
        log::debug!("connection {}: {} descriptors came", self.number, descriptors.len());
        self.session.descriptors(descriptors.len());
        if lost {
            self.session.descriptors_lost();
        }
        let all = self.descriptors.get_or_insert_default();
        all.extend(descriptors);
        if all.len() > DESCRIPTORS {
            self.descriptors = None;
        }
        self.perform(cx);
    }

    /// Whether the client waits for the daemon's status.
    pub(crate) fn wants_status(&self) -> bool {
        self.status_wanted
    }

    /// Sends the daemon's status to the client.
    pub(crate) fn tell_status(&mut self, json: &[u8]) {
        self.status_wanted = false;
        self.session.status(json);
    }

    /// Tells the session when the program was executed. A failure shows in [`Connection::check_exit`].
    pub(super) fn check_exec(&mut self, cx: &Context<'_>) {
        if !self.session.wants_executed() {
            return;
        }
        let Some(child) = &mut self.child else { return };
        if child.is_executed() {
            child.close_exec(cx.registry);
            self.activity += 1;
            self.session.executed(child.group.leader().unsigned_abs());
            self.perform(cx);
        } else if !child.has_failed()
            // Not at every event until then.
            && self.exit_retry.is_none()
            && let Some(pipe) = &mut child.exec
            && let Err(error) = pipe.wait(cx.registry, token(self.slot, Source::Exec), Interest::READABLE)
        {
            log::warn!("connection {}: cannot wait for the exec: {error}; looking again", self.number);
            self.look_again(cx.now);
        }
    }

    /// Goes on ending the input of the program's terminal.
    pub(super) fn pump_end_of_input(&mut self, cx: &Context<'_>) {
        let Some(child) = &mut self.child else { return };
        if !child.stdin.as_ref().is_some_and(|pipe| pipe.ready) {
            return;
        }
        let waited = match child.write_end_of_input() {
            Ok(false) => Ok(()),
            Ok(true) => child
                .stdin
                .as_mut()
                .map_or(Ok(()), |pipe| pipe.wait(cx.registry, token(self.slot, Source::Stdin), Interest::WRITABLE)),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = waited {
            self.give_up(cx, "end the input of the terminal", &error);
        }
    }
}
