//! `--status`: the daemon's status as a table, as JSON, or for Prometheus.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use sockexec::{Error, client};

use crate::arguments::Format;

/// How long to wait for a daemon that is busy, or that does not know the question and stays silent.
const PATIENCE: Duration = Duration::from_secs(5);

/// The daemon's status.
///
/// # Errors
/// From [`client::daemon_status`].
pub(crate) fn text(socket: &Path, format: Format) -> Result<String, Error> {
    let status = client::daemon_status(socket, PATIENCE)?;
    if format == Format::Json {
        return Ok(status + "\n");
    }
    match format {
        // A program reads this: an error is better than another format.
        Format::Prometheus => client::prometheus(&status)
            .ok_or_else(|| Error::Io("cannot read the daemon's status", io::ErrorKind::InvalidData.into())),
        // Text that is not JSON is shown as it is: a person may understand it.
        Format::Text | Format::Json => Ok(serde_json::from_str(&status).map_or(status, |value| table(&value))),
    }
}

fn table(status: &Value) -> String {
    let mut text = String::new();
    let totals = &status["totals"];
    let limits = &status["limits"];
    let _ = writeln!(text, "sockexec {}, up {} s", plain(&status["version"]), plain(&status["uptime"]));
    let _ = writeln!(
        text,
        "{} connections; {} of {} slots taken, running {}, waiting {}",
        status["connections"].as_array().map_or(0, Vec::len),
        plain(&totals["slots_taken"]),
        plain(&limits["max_connections"]),
        plain(&totals["running"]),
        plain(&totals["waiting"]),
    );
    let counted = |names: &[&str]| -> String {
        let one = |name: &&str| format!("{} {}", name.replace('_', " "), plain(&totals[*name]));
        names.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let _ = writeln!(
        text,
        "{}, {} bytes in, {} bytes out, {} spooled",
        counted(&["accepted", "pings", "finished", "failed_to_start", "timed_out", "killed"]),
        plain(&totals["bytes_in"]),
        plain(&totals["bytes_out"]),
        plain(&totals["spooled"]),
    );
    let refusals = ["bad_requests", "forbidden", "busy", "turned_away", "requests_timed_out"];
    let _ = writeln!(text, "refused: {}", counted(&refusals));
    let heads = ["NUMBER", "UID", "PEER", "PID", "AGE", "START", "LEFT", "IN", "OUT", "STATE", "CWD", "ARGV"];
    let rows = status["connections"].as_array().into_iter().flatten().map(row);
    let rows: Vec<[String; 12]> = std::iter::once(heads.map(str::to_owned)).chain(rows).collect();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width =
                rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn row(connection: &Value) -> [String; 12] {
    let shown = |text: &Value| plain(text).escape_debug().to_string();
    let argv = connection["argv"].as_array().into_iter().flatten().map(shown);
    [
        plain(&connection["number"]),
        plain(&connection["peer"]["uid"]),
        // 0: the client is in a PID namespace that the daemon does not see.
        plain(Some(&connection["peer"]["pid"]).filter(|pid| **pid != 0).unwrap_or(&Value::Null)),
        plain(&connection["pid"]),
        plain(&connection["age"]),
        ago(&connection["running"]),
        plain(&connection["left"]),
        plain(&connection["bytes_in"]),
        plain(&connection["bytes_out"]),
        plain(&connection["state"]),
        shown(&connection["cwd"]),
        argv.collect::<Vec<String>>().join(" "),
    ]
}

/// How long ago that was, in seconds.
fn ago(seconds: &Value) -> String {
    match seconds.as_f64() {
        Some(seconds) => format!("{seconds:.2} ago"),
        None => "-".to_owned(),
    }
}

/// A value without quotes, `-` for null.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(seconds) => format!("{seconds:.2}"),
            None => number.to_string(),
        },
        other => other.to_string(),
    }
}
