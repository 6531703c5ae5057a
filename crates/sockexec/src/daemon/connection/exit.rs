//! The program's exit, and the end of its output.

use std::time::Duration;

use sockexec_proto::Version;

use super::describe::Ended;
use super::{Connection, Context};
use crate::daemon::child::{self, Child, Pipe};
use crate::daemon::events::End;
use crate::daemon::token::{Source, token};
use crate::engine::{StartError, StartErrorKind, Time};
use crate::sys::transfer;

/// How soon to check again whether the leader has exited, or was executed, if no descriptor reports it
/// (before Linux 5.3, or none is left or can be waited for); doubled each time, up to 64 ms.
const FIRST_EXIT_RETRY: Duration = Duration::from_millis(1);
const MAX_DOUBLINGS: u8 = 6;

impl Connection {
    /// Notices that the leader has exited, or why the program was not executed.
    pub(super) fn check_exit(&mut self, cx: &Context<'_>) {
        let failed = self.session.wants_executed() && self.child.as_ref().is_some_and(Child::has_failed);
        if !self.exit_ready || !(failed || self.session.wants_exit()) {
            return;
        }
        let Some(child) = &mut self.child else { return };
        let ended = if self.session.version() == Version::Two || self.to_log.is_some() {
            child.group.status_and_usage()
        } else {
            child.group.status().map(|status| status.map(|status| (status, None)))
        };
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => {
                self.activity += 1;
                let reason = format!("exit status lost: {}", child::strerror(&error));
                cx.totals.finished();
                self.fail(cx, &StartError { kind: StartErrorKind::Lost, about: None, reason });
                return;
            }
        };
        if let Some((status, usage)) = ended {
            self.activity += 1;
            self.exit_retry = None;
            if let Some(error) = child.start_error(self.session.program()) {
                cx.totals.failed_after_all();
                self.fail(cx, &error);
                return;
            }
            if self.session.wants_executed() && !child.group.was_executed() {
                let reason = format!("{} came before it was executed", Ended(status));
                cx.totals.failed_after_all();
                self.fail(cx, &StartError { kind: StartErrorKind::Failed, about: None, reason });
                return;
            }
            child.close_exec(cx.registry);
            log::debug!("connection {}: pid {} ended: {}", self.number, child.group.leader(), Ended(status));
            cx.totals.finished();
            let time = cx.now.saturating_sub(self.since);
            cx.totals.counts().ended(status, time);
            if let Some(program) = &mut self.to_log {
                program.end = Some((End::Exit(status), time));
                program.usage = usage;
            }
            let usage = usage.filter(|_| self.session.version() == Version::Two);
            self.session.executed(child.group.leader().unsigned_abs());
            self.session.exited(cx.now, status, usage);
            // From now on it matters when a stream is empty.
            child.outputs().for_each(Pipe::retire);
        } else {
            // Most programs have exited by the time their output has ended; a descriptor is opened only
            // for those that have not.
            self.exit_ready = false;
            if let Err(error) = child.watch_exit(cx.registry, token(self.slot, Source::Exit)) {
                log::debug!("connection {}: cannot watch for the exit: {error}; looking again", self.number);
                self.look_again(cx.now);
            }
        }
    }

    /// Notices that all output of a program that has ended is in its pipes, where it waits for a client that
    /// does not read.
    pub(super) fn check_output(&mut self, cx: &Context<'_>) {
        if !self.session.wants_output_complete() {
            return;
        }
        let Some(child) = &mut self.child else { return };
        let mut complete = true;
        for (pipe, source) in [(&mut child.stdout, Source::Stdout), (&mut child.stderr, Source::Stderr)] {
            let Some(pipe) = pipe else { continue };
            if !transfer::is_hung_up(pipe.as_fd()) {
                complete = false;
                if let Err(error) = pipe.watch(cx.registry, token(self.slot, source)) {
                    // The slot stays taken until the client reads.
                    log::debug!("connection {}: cannot watch for the end of the output: {error}", self.number);
                }
            }
        }
        if complete {
            self.activity += 1;
            self.session.output_is_complete();
        }
    }

    pub(super) fn look_again(&mut self, now: Time) {
        let wait = FIRST_EXIT_RETRY * (1 << self.exit_retries);
        self.exit_retries = (self.exit_retries + 1).min(MAX_DOUBLINGS);
        self.exit_retry = Some(now + wait);
    }
}
