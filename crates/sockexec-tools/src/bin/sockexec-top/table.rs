//! The rows as lines of text: their columns, their order and their width.

use std::cmp::Ordering;
use std::fmt::Write as _;

use ratatui::text::Span;

use crate::column::Column;
use crate::snapshot::Row;

/// How a column looks, and its key.
pub(crate) struct About {
    pub(crate) column: Column,
    /// The key that sorts by it.
    pub(crate) key: char,
    pub(crate) head: &'static str,
    pub(crate) help: &'static str,
    /// In characters; 0: the rest of the line.
    width: usize,
    is_number: bool,
}

const fn about(
    column: Column,
    key: char,
    head: &'static str,
    width: usize,
    is_number: bool,
    help: &'static str,
) -> About {
    About { column, key, head, help, width, is_number }
}

/// From left to right. At 80 columns 16 are left for the arguments.
pub(crate) const COLUMNS: [About; 9] = [
    about(Column::Pid, 'p', "PID", 7, true, "process of the program; -: not started yet"),
    about(Column::User, 'u', "USER", 8, false, "the client's user; -: unknown"),
    about(Column::Age, 'a', "AGE", 6, true, "since the program's start; without one, since the connect"),
    about(Column::Cpu, 'c', "CPU%", 5, true, "of one processor, by the program's process group"),
    about(Column::Memory, 'm', "MEM", 6, true, "resident memory of the group; shared pages count repeatedly"),
    about(Column::In, 'i', "IN", 6, true, "bytes from the client"),
    about(Column::Out, 'o', "OUT", 6, true, "bytes to the client"),
    about(Column::State, 's', "STATE", 12, false, "what the connection waits for"),
    about(Column::Name, 'n', "ARGUMENTS", 0, false, "the program and its arguments, the first 256 bytes"),
];

/// From this width on the state is shown in full.
const WIDE: usize = 100;
const WIDE_STATE: usize = 26;

/// An order of the rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) by: Column,
    pub(crate) reversed: bool,
}

impl Order {
    /// Sorts numbers from the largest, and words alphabetically.
    pub(crate) fn sort(self, rows: &mut [Row]) {
        // Stable: equal rows keep the order of their connections.
        rows.sort_by(|one, other| {
            let order = compare(self.by, one, other);
            if self.reversed { order.reverse() } else { order }
        });
    }
}

fn compare(by: Column, one: &Row, other: &Row) -> Ordering {
    let float = |one: Option<f64>, other: Option<f64>| {
        let value = |it: Option<f64>| it.unwrap_or(-1.0);
        value(other).total_cmp(&value(one))
    };
    match by {
        Column::Pid => other.pid.cmp(&one.pid),
        Column::User => one.user.cmp(&other.user),
        Column::Age => float(Some(one.age), Some(other.age)),
        Column::Cpu => float(one.cpu, other.cpu),
        Column::Memory => other.memory.cmp(&one.memory),
        Column::In => other.received.cmp(&one.received),
        Column::Out => other.sent.cmp(&one.sent),
        Column::State => one.state.cmp(&other.state),
        Column::Name => one.arguments.cmp(&other.arguments),
    }
}

/// The heads of the columns.
pub(crate) fn heads(order: Order, width: usize) -> String {
    line(width, |about| {
        let mark = if about.column != order.by {
            ""
        } else if about.is_number == order.reversed {
            "↑"
        } else {
            "↓"
        };
        format!("{}{mark}", about.head)
    })
}

/// A row, at most `width` columns wide.
pub(crate) fn row(row: &Row, width: usize) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    line(width, |about| match about.column {
        Column::Pid => or_dash(row.pid.map(|pid| pid.to_string())),
        Column::User => row.user.clone(),
        Column::Age => duration(row.age),
        Column::Cpu => or_dash(row.cpu.map(percent)),
        Column::Memory => or_dash(row.memory.map(size)),
        Column::In => size(row.received),
        Column::Out => size(row.sent),
        Column::State => row.state.clone(),
        Column::Name => row.arguments.clone(),
    })
}

fn line(width: usize, cell: impl Fn(&About) -> String) -> String {
    let mut line = String::new();
    for about in &COLUMNS {
        let room = match about.column {
            Column::State if width >= WIDE => WIDE_STATE,
            _ => about.width,
        };
        let text = cell(about);
        let _ = match (room, about.is_number) {
            (0, _) => write!(line, "{text}"),
            (_, true) => write!(line, "{:>room$} ", cut(&text, room)),
            (_, false) => write!(line, "{:<room$} ", cut(&text, room)),
        };
    }
    cut(line.trim_end(), width)
}

/// Cuts text that is too wide, and adds an ellipsis. Widths are columns of the terminal: some characters take two.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if Span::raw(text).width() <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut taken = 1;
    for letter in text.chars() {
        taken += Span::raw(letter.to_string()).width();
        if taken > width {
            break;
        }
        cut.push(letter);
    }
    if width > 0 {
        cut.push('…');
    }
    cut
}

fn percent(percent: f64) -> String {
    if percent < 999.95 { format!("{percent:.1}") } else { format!("{percent:.0}") }
}

/// At most six characters: `999`, `1.0K`, `999M`.
pub(crate) fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return bytes.to_string();
    }
    #[expect(clippy::cast_precision_loss, reason = "three figures are shown")]
    let mut value = bytes as f64;
    let mut unit = "";
    for next in ["K", "M", "G", "T", "P", "E"] {
        // What would round up to 1024 takes the next unit.
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value < 9.95 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

/// At most six characters, in two units: `5.2s`, `59s`, `3m05s`, `2h07m`, `5d03h`, `400d`.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    if seconds < 10.0 {
        return format!("{:.1}s", (seconds * 10.0).floor() / 10.0);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let whole = seconds as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86400);
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{minutes}m{:02}s", whole % 60),
        3600..86400 => format!("{hours}h{:02}m", minutes % 60),
        _ if days < 100 => format!("{days}d{:02}h", hours % 24),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        let sizes = [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (10188, "9.9K"),
            (10189, "10K"),
            (1_048_063, "1023K"),
            (1_048_064, "1.0M"),
            (u64::MAX, "16E"),
        ];
        for (bytes, expected) in sizes {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
        let times = [
            (-1.0, "0.0s"),
            (9.99, "9.9s"),
            (10.0, "10s"),
            (59.9, "59s"),
            (185.0, "3m05s"),
            (7620.0, "2h07m"),
            (443_000.0, "5d03h"),
            (34_560_000.0, "400d"),
            (f64::NAN, "0.0s"),
        ];
        for (seconds, expected) in times {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
        assert_eq!((percent(99.95), percent(999.94), percent(3200.4)), ("100.0".into(), "999.9".into(), "3200".into()));
    }

    #[test]
    fn lines_fit_the_width() {
        let long = Row { arguments: "字".repeat(100), user: "somebody-else".into(), ..Row::default() };
        for width in [1, 2, 79, 80, 200] {
            let line = row(&long, width);
            assert!([width, width - 1].contains(&Span::raw(&line).width()), "{width}: {line}");
        }
        assert!(row(&long, 80).contains(" somebod… "));
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn each_order_and_its_reverse() {
        let row = |pid, user: &str, cpu, memory| Row { pid, user: user.into(), cpu, memory, ..Row::default() };
        let mut rows = vec![
            row(Some(1), "b", None, Some(1)),
            row(Some(3), "a", Some(0.5), None),
            row(None, "c", Some(70.0), Some(9)),
        ];
        let mut pids = |by, reversed| {
            Order { by, reversed }.sort(&mut rows);
            rows.iter().map(|row| row.pid.unwrap_or(0)).collect::<Vec<_>>()
        };
        assert_eq!(pids(Column::Pid, false), [3, 1, 0]);
        assert_eq!(pids(Column::User, false), [3, 1, 0]);
        assert_eq!(pids(Column::User, true), [0, 1, 3]);
        assert_eq!(pids(Column::Cpu, false), [0, 3, 1]);
        assert_eq!(pids(Column::Memory, false), [0, 1, 3]);
        assert_eq!(pids(Column::Memory, true), [3, 1, 0]);
    }

    #[test]
    fn no_key_sorts_by_two_columns() {
        for about in &COLUMNS {
            assert!(!"qrjk?".contains(about.key), "{}", about.key);
            assert_eq!(COLUMNS.iter().filter(|other| other.key == about.key).count(), 1, "{}", about.key);
        }
    }
}
