//! What the daemon does at a moment: its status, with names of users and with /proc's figures for its programs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use nix::unistd::{Uid, User};
use serde_json::Value;
use sockexec::client;
use sockexec_tools::PATIENCE;

use crate::groups::{Groups, suspended};

/// A program that runs, or a request that waits for a slot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    /// Of the connection.
    pub(crate) number: u64,
    pub(crate) pid: Option<i32>,
    pub(crate) user: String,
    pub(crate) state: String,
    /// Seconds since the program was started; without one, since the client connected.
    pub(crate) age: f64,
    /// Percent of one processor.
    pub(crate) cpu: Option<f64>,
    /// In bytes.
    pub(crate) memory: Option<u64>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) arguments: String,
}

/// Everything that is shown.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Lines above the table.
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

/// Makes snapshots. The use of a processor is the difference between two.
#[derive(Debug)]
pub(crate) struct Source {
    socket: PathBuf,
    names: HashMap<u64, String>,
    /// By the number of the connection: the processor time of its program, and when that was read.
    before: HashMap<u64, (f64, Instant)>,
}

impl Source {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket, names: HashMap::new(), before: HashMap::new() }
    }

    /// The path of the socket, escaped for the screen.
    pub(crate) fn socket(&self) -> String {
        self.socket.display().to_string().escape_debug().to_string()
    }

    /// Asks the daemon, each time on a new connection, so that a restarted daemon is found.
    ///
    /// # Errors
    /// A message for the user if there is no status.
    pub(crate) fn snapshot(&mut self) -> Result<Snapshot, String> {
        let asked = Instant::now();
        let status = client::daemon_status(&self.socket, PATIENCE).map_err(|error| error.to_string())?;
        let status: Value = serde_json::from_str(&status).map_err(|_| "the daemon's status is not JSON".to_owned())?;
        let connections = status["connections"].as_array().map(Vec::as_slice).unwrap_or_default();
        // Connections that ask for the status, or have sent no whole request yet, are only counted.
        let is_shown =
            |told: &&Value| told["pid"].is_number() || told["argv"].as_array().is_some_and(|argv| !argv.is_empty());
        let mut rows: Vec<Row> = connections.iter().filter(is_shown).map(|told| self.row(told)).collect();
        self.measure(&mut rows, asked);
        Ok(Snapshot { head: head(&status), rows })
    }

    fn row(&mut self, told: &Value) -> Row {
        let number = |name: &str| told[name].as_u64().unwrap_or(0);
        let seconds = |name: &str| told[name].as_f64();
        Row {
            number: number("number"),
            pid: told["pid"].as_i64().and_then(|pid| pid.try_into().ok()),
            user: told["peer"]["uid"].as_u64().map_or_else(|| "-".to_owned(), |uid| self.name(uid)),
            state: shown(&told["state"]),
            age: seconds("running").or_else(|| seconds("age")).unwrap_or(0.0),
            cpu: None,
            memory: None,
            received: number("bytes_in"),
            sent: number("bytes_out"),
            arguments: arguments(told),
        }
    }

    /// The user's name, or the number if there is no name. Looked up once: the database may be on another machine.
    fn name(&mut self, uid: u64) -> String {
        let ask = || {
            let user = u32::try_from(uid).ok().and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
            user.map_or_else(|| uid.to_string(), |user| user.name.escape_debug().to_string())
        };
        self.names.entry(uid).or_insert_with(ask).clone()
    }

    fn measure(&mut self, rows: &mut [Row], asked: Instant) {
        let groups = if rows.iter().any(|row| row.pid.is_some()) { Groups::read() } else { Groups::default() };
        let now = Instant::now();
        // Programs age between the daemon's answer and this look at them.
        let older = suspended() + now.duration_since(asked).as_secs_f64();
        let mut after = HashMap::new();
        for row in rows {
            let Some(group) = row.pid.and_then(|pid| groups.of(pid, row.age, older)) else { continue };
            let (used, time) = match self.before.get(&row.number) {
                Some((used, then)) => (group.cpu - used, now.duration_since(*then).as_secs_f64()),
                // The first time: the average of its whole life.
                None => (group.cpu, row.age),
            };
            // The sum falls when a member ends that no other waits for.
            row.cpu = Some(100.0 * used.max(0.0) / time.max(0.01));
            row.memory = Some(group.memory);
            after.insert(row.number, (group.cpu, now));
        }
        self.before = after;
    }
}

/// Escapes control characters and marks for the direction of text, by which a client could change the terminal.
fn shown(text: &Value) -> String {
    text.as_str().unwrap_or("-").escape_debug().to_string()
}

fn arguments(told: &Value) -> String {
    let argv = told["argv"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut words: Vec<String> = argv.iter().map(shown).collect();
    if told["arguments"].as_u64().is_some_and(|all| all > argv.len() as u64) {
        words.push("…".to_owned());
    }
    words.join(" ")
}

fn head(status: &Value) -> Vec<String> {
    let totals = &status["totals"];
    let unknown = || "-".to_owned();
    let number = |value: &Value| value.as_u64().map_or_else(unknown, |number| number.to_string());
    let total = |name: &str| number(&totals[name]);
    let bytes = |name: &str| totals[name].as_u64().map_or_else(unknown, crate::table::size);
    vec![
        format!(
            "sockexec {}, up {}; {} running, {} waiting, {} of {} slots taken, {} connections",
            shown(&status["version"]),
            status["uptime"].as_f64().map_or_else(unknown, crate::table::duration),
            total("running"),
            total("waiting"),
            total("slots_taken"),
            number(&status["limits"]["max_connections"]),
            total("connections"),
        ),
        format!(
            "finished {}, not started {}, timed out {}, killed {}; bytes in {}, out {}, spooled {}",
            total("finished"),
            total("failed_to_start"),
            total("timed_out"),
            total("killed"),
            bytes("bytes_in"),
            bytes("bytes_out"),
            bytes("spooled"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_says_is_escaped_and_what_is_cut_is_marked() {
        let told = serde_json::json!({ "argv": ["a\u{1b}[2J\n", "b\u{202e}"], "arguments": 3 });
        assert_eq!(arguments(&told), "a\\u{1b}[2J\\n b\\u{202e} …");
        assert_eq!(arguments(&Value::Null), "");
    }

    /// It was 0 seconds and 0 bytes.
    #[test]
    fn what_the_daemon_does_not_tell_is_not_zero() {
        assert_eq!(
            head(&serde_json::json!({ "version": "9", "totals": { "bytes_in": 0 } })),
            [
                "sockexec 9, up -; - running, - waiting, - of - slots taken, - connections",
                "finished -, not started -, timed out -, killed -; bytes in 0, out -, spooled -"
            ]
        );
    }
}
