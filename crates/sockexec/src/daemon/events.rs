//! Log records with members that programs can read, beside or in place of a message.

use std::fmt;
use std::time::Duration;

use log::kv::{Error, Key, Source, Value, VisitSource};
use log::{Level, Record};
use sockexec_proto::request::EnvironmentChange;
use sockexec_proto::{BadRequest, ErrorCode, Usage};

use crate::engine::ExitStatus;
use crate::sys::socket::Peer;

/// The target of records that are written whatever the level: start, reload and stop of the daemon, and what
/// USR1 and USR2 ask for.
/// They are of level `info`, and go to [`log::logger`] although [`log::max_level`] may be below that.
pub const ALWAYS: &str = "sockexec::always";

/// Logs this, whatever the level.
pub(crate) fn always(event: &str, message: fmt::Arguments<'_>) {
    let record = &mut Record::builder();
    let members = [("event", event)];
    let record = record.level(Level::Info).target(ALWAYS).key_values(&members);
    log::logger().log(&record.module_path_static(Some(module_path!())).args(message).build());
}

/// Whether each program that has ended gets a line.
pub(crate) fn wants_ends() -> bool {
    log::log_enabled!(Level::Info)
}

/// How a program ended, or why there was none.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Exit(ExitStatus),
    Error(ErrorCode),
}

/// As JSON.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(ExitStatus::Code(code)) => write!(f, "{{\"code\":{code}}}"),
            Self::Exit(ExitStatus::Signal(signal)) => write!(f, "{{\"signal\":{signal}}}"),
            Self::Error(code) => write!(f, "{{\"error\":\"{code}\"}}"),
        }
    }
}

/// What is collected about a program for its line, if there is one.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) pid: Option<i32>,
    /// With the time after its start.
    pub(crate) end: Option<(End, Duration)>,
    pub(crate) usage: Option<Usage>,
    /// Links it to a request of the client's own: a variable that the client has set for the program.
    pub(crate) traceparent: Option<String>,
}

impl Program {
    pub(crate) fn new(changes: &[EnvironmentChange]) -> Self {
        Self { pid: None, end: None, usage: None, traceparent: traceparent(changes) }
    }
}

/// The line of a program that has ended.
#[derive(Debug)]
pub(crate) struct Finished<'a> {
    pub(crate) connection: u64,
    pub(crate) peer: Option<Peer>,
    /// JSON.
    pub(crate) argv: &'a str,
    pub(crate) program: &'a Program,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Finished<'_> {
    pub(crate) fn log(&self) {
        let record = &mut Record::builder();
        let record = record.level(Level::Info).target(module_path!()).module_path_static(Some(module_path!()));
        log::logger().log(&record.key_values(self).args(format_args!("")).build());
    }
}

impl Source for Finished<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        let Program { pid, end, usage, traceparent } = self.program;
        let mut pair = |key, value| visitor.visit_pair(Key::from_str(key), value);
        pair("event", Value::from("finished"))?;
        pair("connection", Value::from(self.connection))?;
        pair("uid", option(self.peer.map(|peer| u64::from(peer.uid))))?;
        pair("peer_pid", option(self.peer.map(|peer| u64::from(peer.pid.unsigned_abs()))))?;
        pair("argv", Value::from(self.argv))?;
        pair("pid", option(pid.map(|pid| u64::from(pid.unsigned_abs()))))?;
        let end_and_time = end.as_ref();
        pair("exit", end_and_time.map_or(Value::null(), |(end, _)| Value::from_dyn_display(end)))?;
        let time = end_and_time.map(|(_, time)| *time).unwrap_or_default();
        pair("seconds", Value::from(seconds(time)))?;
        let cpu = usage.as_ref().map(|usage| usage.user_time + usage.system_time);
        pair("cpu_seconds", cpu.map_or(Value::null(), |cpu| Value::from(seconds(cpu))))?;
        pair("max_rss_bytes", option(usage.as_ref().map(|usage| usage.max_rss_kib.saturating_mul(1024))))?;
        pair("bytes_in", Value::from(self.bytes_in))?;
        pair("bytes_out", Value::from(self.bytes_out))?;
        traceparent.as_deref().map_or(Ok(()), |traceparent| pair("traceparent", Value::from(traceparent)))
    }
}

fn option(value: Option<u64>) -> Value<'static> {
    value.map_or(Value::null(), Value::from)
}

/// Rounded to microseconds.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e6
}

/// Why a request is refused, without the client's bytes that [`BadRequest`] shows: they may be input, or a
/// value for the environment.
pub(crate) struct Refusal<'a>(pub(crate) &'a BadRequest);

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use sockexec_proto::error::BadRequestKind::{
            CountNotANumber, Netstring, OptionValue, UnknownOption, UnknownSignal, UnknownTag, UnknownVersion,
            WindowSize,
        };
        use sockexec_proto::netstring::ErrorKind::{NoColon, NoComma, NoLength};
        match &self.0.kind {
            Netstring(NoLength(_)) => f.write_str("no digit where a length was expected")?,
            Netstring(NoColon(_)) => f.write_str("neither a digit nor ':' in a length")?,
            Netstring(NoComma(_)) => f.write_str("no ',' after a payload")?,
            CountNotANumber(_) => f.write_str("number of arguments is not a decimal number")?,
            UnknownVersion(_) => f.write_str("unknown version of the protocol")?,
            UnknownOption(_) => f.write_str("unknown option")?,
            OptionValue(name, _) => write!(f, "invalid value of option {name}")?,
            UnknownTag(_) => f.write_str("unknown tag")?,
            UnknownSignal(_) => f.write_str("unknown signal")?,
            WindowSize(_) => f.write_str("bad winsize")?,
            _ => return self.0.fmt(f),
        }
        write!(f, " at byte {}", self.0.offset)
    }
}

/// The `TRACEPARENT` that the client's changes to the environment set, if it has the form of the W3C's Trace
/// Context. Nothing else of an environment is logged.
fn traceparent(changes: &[EnvironmentChange]) -> Option<String> {
    let is_its_name = |name: &[u8]| name.eq_ignore_ascii_case(b"traceparent");
    let mut found = None;
    for change in changes {
        match change {
            EnvironmentChange::Set(name, value) if is_its_name(name) => found = Some(value),
            EnvironmentChange::Unset(name) if is_its_name(name) => found = None,
            EnvironmentChange::Clear => found = None,
            EnvironmentChange::Set(..) | EnvironmentChange::Unset(_) => {}
        }
    }
    let value = std::str::from_utf8(found?).ok()?;
    let lengths = value.split('-').map(str::len);
    let is_hexadecimal = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let has_form = lengths.eq([2, 32, 16, 2]) && value.split('-').all(is_hexadecimal);
    has_form.then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_environment_only_what_has_the_form_is_told() {
        let set = |name: &str, value: &str| EnvironmentChange::Set(name.into(), value.into());
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let unset = |name: &str| EnvironmentChange::Unset(name.into());
        assert_eq!(traceparent(&[set("TRACEPARENT", good)]).as_deref(), Some(good));
        assert_eq!(traceparent(&[set("traceparent", good), set("A", "b")]).as_deref(), Some(good));
        assert_eq!(traceparent(&[set("TRACEPARENT", good), unset("TRACEPARENT")]), None);
        assert_eq!(traceparent(&[set("TRACEPARENT", good), EnvironmentChange::Clear]), None);
        assert_eq!(traceparent(&[set("TRACEPARENT", &good.to_uppercase())]), None);
        for bad in ["", "secret", "00-0-0-0", &good[1..], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333g-01"] {
            assert_eq!(traceparent(&[set("TRACEPARENT", bad)]), None, "{bad}");
        }
    }
}
