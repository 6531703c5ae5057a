//! One line of the log, in either form.

use std::fmt::{self, Write as _};

use log::kv::{Error, Key, Source, Value, VisitSource, VisitValue};
use log::{Level, Record};

use super::{Format, Style};

/// The member that names the kind of an event.
const EVENT: &str = "event";

/// The event of a record that names none.
const OTHER: &str = "note";

/// Members whose value is JSON already.
const JSON: [&str; 2] = ["argv", "exit"];

/// The contents of a line.
pub(super) struct Line<'a> {
    level: Level,
    event: String,
    kind: Kind,
    members: Option<&'a dyn Source>,
    message: fmt::Arguments<'a>,
}

/// Lines of one kind are limited together: those of an event, or without one those of a module and line of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Event(String),
    Place(&'static str, u32),
}

impl<'a> Line<'a> {
    pub(super) fn new(record: &'a Record<'a>) -> Self {
        let members = record.key_values();
        let event = members.get(Key::from_str(EVENT)).map(|event| event.to_string());
        let place = (record.module_path_static().unwrap_or_default(), record.line().unwrap_or_default());
        let kind = event.clone().map_or(Kind::Place(place.0, place.1), Kind::Event);
        Self {
            level: record.level(),
            event: event.unwrap_or_else(|| OTHER.to_owned()),
            kind,
            members: Some(members),
            message: *record.args(),
        }
    }

    /// A line about the log itself, at `warn`.
    pub(super) fn own(event: &str, message: fmt::Arguments<'a>) -> Self {
        let event = event.to_owned();
        Self { level: Level::Warn, kind: Kind::Event(event.clone()), event, members: None, message }
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Whether it reports that the daemon has started.
    pub(super) fn is_start(&self) -> bool {
        self.event == "start"
    }

    /// Appends the line and its newline. Control characters are escaped: with a newline a client could forge a line,
    /// and choose its priority.
    pub(super) fn format(&self, style: Style, out: &mut Vec<u8>) {
        let mut text = String::new();
        if style.priority {
            // sd-daemon(3): 3 is an error, 7 is for debugging.
            let priority = match self.level {
                Level::Error => 3,
                Level::Warn => 4,
                Level::Info => 6,
                Level::Debug | Level::Trace => 7,
            };
            let _ = write!(text, "<{priority}>");
        }
        let time = now();
        match style.format {
            Format::Text => {
                if style.time {
                    let _ = write!(text, "{time} ");
                }
                self.text(&mut text);
            }
            Format::Json => {
                let level = self.level.as_str().to_lowercase();
                let _ = write!(text, "{{\"time\":\"{time}\",\"level\":\"{level}\"");
                self.json(&mut text);
            }
        }
        escape(&text, out);
        out.push(b'\n');
    }

    /// Appends the message. Without one, the event and its members.
    fn text(&self, text: &mut String) {
        text.push_str(if self.level == Level::Warn { "sockexec: warning: " } else { "sockexec: " });
        if self.message.as_str() == Some("") {
            text.push_str(&self.event);
            self.visit(&mut Members { text, format: Format::Text });
        } else {
            let _ = text.write_fmt(self.message);
        }
    }

    fn json(&self, text: &mut String) {
        let mut members = Members { text, format: Format::Json };
        members.member(EVENT, &Value::from(self.event.as_str()));
        self.visit(&mut members);
        if self.message.as_str() != Some("") {
            members.member("message", &Value::from(&self.message.to_string()));
        }
        text.push('}');
    }

    fn visit(&self, members: &mut Members<'_>) {
        if let Some(source) = self.members {
            // Writing to a string does not fail.
            let _ = source.visit(members);
        }
    }
}

/// Appends members to a line.
struct Members<'a> {
    text: &'a mut String,
    format: Format,
}

impl Members<'_> {
    fn member(&mut self, key: &str, value: &Value<'_>) {
        let is_json = JSON.contains(&key);
        let _ = match self.format {
            Format::Text => write!(self.text, " {key}="),
            Format::Json => write!(self.text, ",\"{key}\":"),
        };
        let _ = value.visit(Shown { text: self.text, format: self.format, is_json });
    }
}

impl<'kvs> VisitSource<'kvs> for Members<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if key.as_str() != EVENT {
            self.member(key.as_str(), &value);
        }
        Ok(())
    }
}

/// Appends a value.
struct Shown<'a> {
    text: &'a mut String,
    format: Format,
    is_json: bool,
}

impl Shown<'_> {
    fn plain(&mut self, value: impl fmt::Display) -> Result<(), Error> {
        Ok(write!(self.text, "{value}")?)
    }
}

impl VisitValue<'_> for Shown<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.visit_str(&value.to_string())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        self.plain(if self.format == Format::Json { "null" } else { "-" })
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.plain(value)
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        self.plain(value)
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        // JSON has neither infinity nor NaN.
        self.plain(if value.is_finite() { value } else { 0.0 })
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        self.plain(value)
    }

    fn visit_str(&mut self, value: &str) -> Result<(), Error> {
        if self.format == Format::Text || self.is_json {
            return self.plain(value);
        }
        let quoted = serde_json::to_string(value).unwrap_or_default();
        self.plain(quoted)
    }
}

/// The time in UTC, in the form of RFC 3339.
#[expect(clippy::disallowed_types, reason = "a line has the time of day")]
fn now() -> impl fmt::Display {
    humantime::format_rfc3339_millis(std::time::SystemTime::now())
}

/// Escapes what could end the line or change what a terminal shows: control characters, line separators, and marks
/// for the direction of text. The escapes are those of JSON, where such characters occur only within strings.
fn escape(text: &str, out: &mut Vec<u8>) {
    let is_harmful = |c: char| {
        c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    for c in text.chars() {
        if is_harmful(c) {
            out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}
