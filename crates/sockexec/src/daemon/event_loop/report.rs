//! What the daemon reports about itself when it is asked: the status, and what USR1 and USR2 print.

use std::fmt;
use std::os::fd::AsRawFd as _;

use super::EventLoop;
use crate::daemon::Settings;
use crate::daemon::connection::Connection;
use crate::daemon::events::always;
use crate::daemon::status::{LimitsReport, Now, Report};
use crate::engine::{Limits, Time};

impl EventLoop {
    /// The daemon's status for a client that asks for it: JSON.
    pub(super) fn status(&self, now: Time) -> Vec<u8> {
        let connections: Vec<_> = self.connections().iter().map(|one| one.report(now)).collect();
        let live = connections.iter().fold((0, 0), |(in_, out), one| (in_ + one.bytes_in, out + one.bytes_out));
        // No `..`, here and inside: a new limit does not compile until it is decided here.
        let Settings {
            limits: Limits { request_timeout, timeout, kill_timeout, linger, termsig: _, window },
            drain: _,
            spool,
            spool_total,
            max_connections,
            max_per_user,
            max_waiting,
            extra: _,
            spare_descriptors: _,
            watches: _,
            program_descriptors: _,
        } = self.settings;
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            uptime: now.saturating_sub(Time::ZERO),
            spawn: self.spawner.borrow().call().name(),
            lacks: self.lacks.iter().map(|lack| lack.name).collect(),
            limits: LimitsReport {
                max_connections,
                max_waiting,
                max_per_user: Some(max_per_user).filter(|&max| max < max_connections),
                request_timeout,
                timeout,
                kill_timeout,
                linger,
                spool,
                spool_total,
                window,
            },
            totals: self.totals.report(Now {
                accepted: self.accepted,
                connections: self.slots.len(),
                slots_taken: self.programs.taken(),
                waiting: self.programs.waiting(),
                spooled: self.spools.on_disk(),
                live,
            }),
            counts: self.totals.counts(),
            connections,
        };
        serde_json::to_vec(&report).unwrap_or_else(|error| {
            // Impossible: every map has strings as keys, and a Vec takes everything.
            log::error!("cannot write the status: {error}");
            b"{}".to_vec()
        })
    }

    /// Where clients are accepted, for people, in the order of [`EventLoop::doors`].
    pub(super) fn places(&self) -> impl Iterator<Item = String> {
        let own = self.listening.iter().map(|own| own.file.path().display().to_string());
        own.chain(self.activated.iter().map(|one| one.description.clone()))
    }

    pub(super) fn print_connections(&self, now: Time) {
        report(format_args!(
            "{} of {} slots taken, {} requests wait, {} connections, {} accepted, {} turns of the loop, {} looks for sessions, output gathered {} times",
            self.programs.taken(),
            self.settings.max_connections,
            self.programs.waiting(),
            self.slots.len(),
            self.accepted,
            self.turns_made,
            self.lookout.looks(),
            self.totals.gatherings()
        ));
        for connection in self.connections() {
            report(format_args!("{}", connection.describe(now)));
        }
    }

    /// In the order in which they were accepted.
    fn connections(&self) -> Vec<&Connection> {
        let mut all: Vec<_> = self.slots.iter().map(|(_, place)| &place.connection).collect();
        all.sort_unstable_by_key(|connection| connection.number());
        all
    }

    pub(super) fn print_descriptors(&self, now: Time) {
        let wait = if self.has_room() { "clients" } else { "a place under --max-waiting" };
        for (door, place) in self.doors().zip(self.places()) {
            let descriptor = door.socket.as_raw_fd();
            report(format_args!("descriptor {descriptor}: listening on {place}, waits for {wait}"));
        }
        if let Some(retiring) = &self.retiring {
            let descriptor = retiring.socket.as_raw_fd();
            report(format_args!("descriptor {descriptor}: listening where it was before, waits for late clients"));
        }
        for connection in self.connections() {
            let description = connection.describe(now);
            for (descriptor, what) in connection.descriptors() {
                report(format_args!("descriptor {descriptor}: {what}; {description}"));
            }
        }
    }
}

/// Logs whatever the level is, as a signal has asked for it.
fn report(line: fmt::Arguments<'_>) {
    always("report", line);
}
