//! The session's actions.

use std::os::fd::OwnedFd;

use sockexec_proto::request::Request;
use sockexec_proto::{ErrorCode, Version};

use super::describe::Arguments;
use super::{Connection, Context};
use crate::daemon::child::{self, Child};
use crate::daemon::events::{self, Refusal};
use crate::engine::Action;
use crate::sys::foreign::Foreign;
use crate::sys::spawn::{Order, Spawner};
use crate::sys::terminal;
use crate::sys::transfer;

impl Connection {
    /// Carries out all actions that the session asks for.
    pub(super) fn perform(&mut self, cx: &Context<'_>) {
        while let Some(action) = self.session.next_action() {
            self.activity += 1;
            match action {
                Action::WantSlot => self.want_slot(cx),
                Action::Pinged => cx.totals.pinged(),
                Action::Spawn(request) => self.spawn(cx, *request),
                Action::Send(bytes) => self.outbox.push(&bytes),
                Action::Report(error) => {
                    if self.received > 0 {
                        self.warn("bad-request", format_args!("bad request: {}", Refusal(&error)));
                        cx.totals.counts().error(&ErrorCode::BadRequest);
                    } else {
                        // It may only have checked whether anybody listens.
                        log::debug!("connection {}: no request came", self.number);
                    }
                }
                Action::TellStatus => self.status_wanted = true,
                Action::Finish => {
                    self.finishing = true;
                    // Those of a request that was refused. Its client may stay for seconds.
                    self.descriptors = None;
                }
                Action::CloseClient => self.close_client(cx),
                Action::CloseStdin
                | Action::EndTerminalInput
                | Action::Signal(_)
                | Action::Resize(_)
                | Action::Terminate
                | Action::Kill
                | Action::Probe
                | Action::DrainOutput
                | Action::CloseOutput
                | Action::Reap => self.perform_on_child(cx, &action),
            }
        }
    }

    fn perform_on_child(&mut self, cx: &Context<'_>, action: &Action) {
        let Some(child) = &mut self.child else { return };
        let leader = child.group.leader();
        match action {
            Action::CloseStdin => {
                if let Some(pipe) = child.stdin.take() {
                    pipe.close(cx.registry);
                }
                self.input.drop_ahead();
            }
            Action::EndTerminalInput => child.end_terminal_input(),
            Action::Signal(number) => {
                if let Ok(None) = child.group.status() {
                    log::debug!("connection {}: signal {number} to the group of pid {leader}", self.number);
                    child.group.send(*number);
                } else {
                    // It has ended unnoticed: the signal is not for the processes left in its group.
                    log::debug!("connection {}: signal {number} came after the end of pid {leader}", self.number);
                    self.exit_ready = true;
                }
            }
            Action::Resize(size) => {
                if let Some(terminal) = child.group.terminal()
                    && let Err(error) = terminal::resize(terminal, *size)
                {
                    log::warn!("connection {}: cannot resize the terminal: {error}", self.number);
                }
            }
            // It has nothing to clean up yet, and KILL ends it whatever it waits for, even if it is stopped.
            Action::Terminate if child.group.awaits_exec() => {
                log::debug!("connection {}: KILL to the group of pid {leader}, which was not executed", self.number);
                child.group.kill();
                cx.totals.killed();
            }
            Action::Terminate => {
                log::debug!("connection {}: TERM to the group of pid {leader}", self.number);
                self.terminate(cx);
            }
            Action::Kill => {
                log::debug!("connection {}: KILL to the group of pid {leader}", self.number);
                self.kill(cx);
                cx.totals.killed();
            }
            Action::Probe => self.probe(cx),
            Action::DrainOutput => {
                log::debug!("connection {}: taking what is left of the output", self.number);
                for pipe in child.outputs() {
                    pipe.ready = true;
                    pipe.left = Some(u32::try_from(transfer::available(pipe.as_fd())).unwrap_or(u32::MAX));
                }
            }
            Action::CloseOutput => {
                for pipe in [child.stdout.take(), child.stderr.take()].into_iter().flatten() {
                    pipe.close(cx.registry);
                }
            }
            Action::Reap => child.group.reap(),
            Action::WantSlot
            | Action::Pinged
            | Action::Spawn(_)
            | Action::Send(_)
            | Action::Report(_)
            | Action::TellStatus
            | Action::Finish
            | Action::CloseClient => {}
        }
    }

    /// The request is complete: it gets a slot, or waits for one.
    fn want_slot(&mut self, cx: &Context<'_>) {
        self.since = cx.now;
        if cx.slots.take(self.user()) {
            self.has_slot = true;
            self.session.slot(cx.now);
        } else {
            self.waits = true;
            self.arguments = self.session.waiting_request().map(|it| Arguments::new(&it.argv)).unwrap_or_default();
            let requests = cx.slots.wait(self.user(), self.slot);
            if cx.slots.are_closed() {
                // It is told at once that it waits in vain.
                return;
            }
            if cx.slots.begins_to_be_full() {
                let slots = cx.slots.taken();
                log::warn!(
                    event = "slots-taken", slots = slots, waiting = requests;
                    "all {slots} slots are taken (-m); {requests} requests wait for one"
                );
            }
            log::debug!("connection {}: waits for a slot, {requests} requests do", self.number);
            self.session.has_to_wait(requests);
        }
    }

    fn spawn(&mut self, cx: &Context<'_>, request: Request) {
        let Request { argv, options } = request;
        self.arguments = Arguments::new(&argv);
        // Before all that may fail: a program that could not be started has its line, too.
        self.to_log = events::wants_ends().then(|| Box::new(events::Program::new(&options.environment)));
        let came = self.descriptors.take().map(|came| *came).unwrap_or_default();
        let descriptors = if options.descriptors {
            let Ok(three) = came.try_into() else {
                cx.totals.failed();
                self.fail(cx, &child::descriptors_lost());
                return;
            };
            Some(three)
        } else {
            // Nobody wants them, and the child must not have copies.
            drop(came);
            None
        };
        let watched = self.session.version() == Version::Two;
        if watched && Spawner::WAITS {
            // The client must not take a slow exec for a daemon that does not know its version.
            self.flush(cx);
        }
        let order = Order { argv, options, descriptors, watched, connections: cx.connections };
        let started = Child::start(&mut cx.spawner.borrow_mut(), order, self.session.program());
        if let (Some(program), Ok(child)) = (&mut self.to_log, &started) {
            program.pid = Some(child.group.leader());
        }
        match started {
            Ok(child) => {
                log::debug!("connection {}: started pid {}: {}", self.number, child.group.leader(), self.arguments);
                self.note_start(cx, child.call(&cx.spawner.borrow()));
                self.child = Some(child);
                cx.totals.started();
                self.session.started(cx.now);
            }
            Err(error) => {
                cx.totals.failed();
                self.fail(cx, &error);
            }
        }
    }

    pub(super) fn close_client(&mut self, cx: &Context<'_>) {
        let Some(mut socket) = self.socket.take() else { return };
        let _ = cx.registry.deregister(&mut socket);
        if !self.input_ended && !transfer::drain(&socket) {
            drop(Foreign::from(OwnedFd::from(socket)));
        }
        self.outbox.clear();
        self.input.clear();
        self.descriptors = None;
        self.finishing = false;
    }
}
