//! A connection that goes wrong, and what the log says about it and about a program that has ended.

use std::fmt;
use std::io;
use std::time::Duration;

use sockexec_proto::ErrorCode;

use super::describe::Credentials;
use super::{Connection, Context};
use crate::daemon::child;
use crate::daemon::events::{End, Finished};
use crate::daemon::status::Late;
use crate::engine::{StartError, StartErrorKind};

impl Connection {
    /// Counted from 1, over the daemon's life.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Logs what goes wrong with this connection.
    pub(super) fn warn(&self, event: &str, message: fmt::Arguments<'_>) {
        let (uid, pid) = (self.peer.map(|peer| peer.uid), self.peer.map(|peer| peer.pid));
        log::warn!(
            event = event, connection = self.number, uid = uid, peer_pid = pid;
            "connection {}{}: {message}", self.number, Credentials(self.peer)
        );
    }

    /// Its deadline has passed.
    pub(super) fn warn_of_deadline(&self, late: Late) {
        match (late, &self.child) {
            (Late::Request, _) => self.warn("deadline", format_args!("the request was not complete in time")),
            (Late::End, Some(child)) => {
                let (pid, program) = (child.group.leader(), self.arguments.program());
                self.warn("deadline", format_args!("the deadline of pid {pid}, {program}, has come"));
            }
            (Late::End, None) => self.warn("deadline", format_args!("the deadline has come")),
        }
    }

    /// There is no program, or nothing is known about it any more.
    pub(super) fn fail(&mut self, cx: &Context<'_>, error: &StartError) {
        let (program, reason) = (self.arguments.program(), &error.reason);
        match (error.kind, &error.about) {
            (StartErrorKind::Lost, _) => self.warn("lost", format_args!("lost {program}: {reason}")),
            (_, Some(about)) => {
                let about = about.escape_ascii();
                self.warn("start-failed", format_args!("cannot start {program}: {about}: {reason}"));
            }
            (_, None) => self.warn("start-failed", format_args!("cannot start {program}: {reason}")),
        }
        if let Some(program) = &mut self.to_log {
            program.end = Some((End::Error(error.kind.code()), Duration::ZERO));
        }
        self.count_error(cx, &error.kind.code());
        self.session.start_failed(error);
    }

    /// The system refuses what the program's streams need. The client is told, and does not get a part of the
    /// output, or an exit status that follows from a part of the input.
    pub(super) fn give_up(&mut self, cx: &Context<'_>, what: &str, error: &io::Error) {
        self.warn("broken", format_args!("cannot {what}: {error}"));
        self.count_error(cx, &ErrorCode::Internal);
        self.activity += 1;
        self.session.broken(cx.now, &format!("cannot {what}: {}", child::strerror(error)));
        self.perform(cx);
    }

    /// Counts an error that is about to be told. One that follows from another is not: where KILL ends a program
    /// before its exec, the deadline has come, or its client has left.
    fn count_error(&self, cx: &Context<'_>, code: &ErrorCode) {
        if self.session.tells_errors() {
            cx.totals.counts().error(code);
        }
    }

    /// Its program was started by this call.
    pub(super) fn note_start(&mut self, cx: &Context<'_>, call: &str) {
        let now = cx.clock.now();
        cx.totals.counts().started(call, now.saturating_sub(self.since));
        self.since = now;
    }

    /// Logs how its program has ended, once that is known.
    pub(super) fn log_end(&mut self) {
        if let Some(program) = self.to_log.take_if(|program| program.end.is_some()) {
            Finished {
                connection: self.number,
                peer: self.peer,
                argv: &self.arguments.json(),
                program: &program,
                bytes_in: self.received,
                bytes_out: self.sent,
            }
            .log();
        }
    }
}
