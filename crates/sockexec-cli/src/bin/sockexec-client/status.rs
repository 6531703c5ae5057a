//! `--status`: what a daemon does, for a person.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use sockexec::{Error, client};

/// How long to wait for a daemon that is busy, or that does not know the question and says nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// The daemon's status, as it came or as a table.
///
/// # Errors
/// From [`client::daemon_status`].
pub(crate) fn text(socket: &Path, json: bool) -> Result<String, Error> {
    let status = client::daemon_status(socket, PATIENCE)?;
    if json {
        return Ok(status + "\n");
    }
    // What is no JSON is shown as it is, to whoever can make something of it.
    Ok(serde_json::from_str(&status).map_or(status, |value| table(&value)))
}

fn table(status: &Value) -> String {
    let mut text = String::new();
    let totals = &status["totals"];
    let limits = &status["limits"];
    let _ = writeln!(text, "sockexec {}, up {} s", plain(&status["version"]), plain(&status["uptime"]));
    let _ = writeln!(
        text,
        "{} of {} connections; accepted {}, running {}, finished {}, failed to start {}, timed out {}, killed {}, {} bytes in, {} bytes out",
        status["connections"].as_array().map_or(0, Vec::len),
        plain(&limits["max_connections"]),
        plain(&totals["accepted"]),
        plain(&totals["running"]),
        plain(&totals["finished"]),
        plain(&totals["failed_to_start"]),
        plain(&totals["timed_out"]),
        plain(&totals["killed"]),
        plain(&totals["bytes_in"]),
        plain(&totals["bytes_out"]),
    );
    let heads = ["NUMBER", "PEER", "PID", "AGE", "IN", "OUT", "STATE", "ARGV"].map(str::to_owned);
    let rows = status["connections"].as_array().into_iter().flatten().map(row);
    let rows: Vec<[String; 8]> = std::iter::once(heads).chain(rows).collect();
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

fn row(connection: &Value) -> [String; 8] {
    let argv = connection["argv"].as_array().into_iter().flatten().map(|word| plain(word).escape_debug().to_string());
    [
        plain(&connection["number"]),
        plain(&connection["peer"]["pid"]),
        plain(&connection["pid"]),
        plain(&connection["age"]),
        plain(&connection["bytes_in"]),
        plain(&connection["bytes_out"]),
        plain(&connection["state"]),
        argv.collect::<Vec<String>>().join(" "),
    ]
}

/// Without the quotes; `-` for what there is none of.
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
