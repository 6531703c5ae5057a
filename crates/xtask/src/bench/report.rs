//! The tables and `bench.json`.

use std::fmt::Write as _;
use std::fs;
use std::thread;

use serde::Serialize;
use serde_json::{Value, json};

use super::contender::Contender;
use super::goals::{Goal, Limit};
use super::results::{Kind, Results};
use super::run::Effort;

/// Every table of figures.
pub(crate) fn tables(results: &Results) -> String {
    let mut text = String::new();
    for kind in Kind::ALL {
        let rows = results.rows(kind);
        if rows.is_empty() {
            continue;
        }
        let contenders = results.contenders(kind);
        let head = format!("{}, {}", kind.title(), kind.unit());
        let mut table = vec![once(head, contenders.iter().map(|contender| contender.name().to_owned()))];
        for row in rows {
            let cells = contenders.iter().map(|&contender| cell(results, kind, row, contender));
            table.push(once(row.to_owned(), cells));
        }
        text.push_str(&aligned(&table));
        if let Some(base) = kind.base() {
            let _ = writeln!(text, "(in brackets: of {})", base.name());
        }
        text.push('\n');
    }
    text.push_str(&of_other(results));
    for absent in results.absent() {
        let _ = writeln!(text, "left out: {absent}\n");
    }
    text
}

/// The daemon compared with another build of it, if there is one.
fn of_other(results: &Results) -> String {
    let pairs = [(Contender::Fast, Contender::Other), (Contender::Fast2, Contender::Other2)];
    let head = pairs.map(|(ours, other)| format!("{} of {}", ours.name(), other.name()));
    let mut table = vec![once("beside the other build".to_owned(), head.into_iter())];
    for kind in Kind::ALL {
        for row in results.rows(kind) {
            let ratios = pairs.map(|(ours, other)| results.ratio(kind, row, ours, other));
            if ratios.iter().any(Option::is_some) {
                let cells = ratios.map(|ratio| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}")));
                table.push(once(format!("{row}, {}", kind.title()), cells.into_iter()));
            }
        }
    }
    if table.len() == 1 { String::new() } else { aligned(&table) + "\n" }
}

/// The table of goals.
pub(crate) fn goal_table(goals: &[Goal]) -> String {
    let mut table = vec![["goal", "limit", "measured", "met", "measured by"].map(str::to_owned).to_vec()];
    for goal in goals {
        let limit = match goal.limit {
            Limit::AtLeast(limit) => format!("at least {limit}"),
            Limit::AtMost(limit) => format!("at most {limit}"),
        };
        let measured = goal.measured.map_or_else(|| "not measured".to_owned(), |measured| format!("{measured:.3}"));
        let met = match goal.met() {
            None => "-",
            Some(true) => "yes",
            Some(false) => "NO",
        };
        let command = format!("`cargo xtask bench {}`", goal.row);
        table.push(vec![goal.what.to_owned(), limit, measured, met.to_owned(), command]);
    }
    aligned(&table)
}

/// The marks around the figures in a document.
const BEGIN: &str = "<!-- figures: begin -->\n";
const END: &str = "<!-- figures: end -->\n";

/// `document` with other figures between its two marks.
pub(crate) fn replace(document: &str, figures: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n\n{END}{after}", figures.trim_end()))
}

/// All figures, for other programs.
pub(crate) fn document(results: &Results, goals: &[Goal], effort: Effort, busy: f64) -> Value {
    let rows: Vec<_> = Kind::ALL.into_iter().flat_map(|kind| rows_of(results, kind)).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "machine": {
            "kernel": first_line("/proc/sys/kernel/osrelease"),
            "processors": thread::available_parallelism().map_or(0, usize::from),
            "busy_before": busy,
        },
        "effort": {
            "rounds": effort.rounds,
            "seconds_a_figure": effort.slice.as_secs_f64(),
            "bytes_of_a_stream": effort.bytes,
        },
        "rows": rows,
        "goals": goals.iter().map(|goal| json!({ "goal": goal, "met": goal.met() })).collect::<Vec<_>>(),
    })
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    table: &'static str,
    row: &'a str,
    unit: &'static str,
    contender: &'static str,
    median: Option<f64>,
    base: Option<&'static str>,
    ratio: Option<f64>,
    samples: &'a [f64],
}

fn rows_of(results: &Results, kind: Kind) -> Vec<Line<'_>> {
    let mut rows = Vec::new();
    for row in results.rows(kind) {
        for contender in results.contenders(kind) {
            let samples = results.samples(kind, row, contender);
            if samples.is_empty() {
                continue;
            }
            rows.push(Line {
                table: kind.title(),
                row,
                unit: kind.unit(),
                contender: contender.name(),
                median: results.median(kind, row, contender),
                base: kind.base().map(Contender::name),
                ratio: kind.base().and_then(|base| results.ratio(kind, row, contender, base)),
                samples,
            });
        }
    }
    rows
}

fn cell(results: &Results, kind: Kind, row: &str, contender: Contender) -> String {
    let Some(median) = results.median(kind, row, contender) else { return "-".to_owned() };
    let mut text = format!("{median:.*}", kind.decimals());
    if let Some(ratio) = kind.base().and_then(|base| results.ratio(kind, row, contender, base)) {
        let _ = write!(text, " ({ratio:.2})");
    }
    text
}

fn once(first: String, rest: impl Iterator<Item = String>) -> Vec<String> {
    std::iter::once(first).chain(rest).collect()
}

/// A table with aligned columns: the first one to the left, figures to the right, a line below the head.
fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |column| table.iter().filter_map(move |row| row.get(column));
    let widths: Vec<_> =
        (0..columns).map(|column| cells(column).map(|cell: &String| cell.chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for (number, row) in table.iter().enumerate() {
        text.push('|');
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let _ = if column == 0 { write!(text, " {cell:width$} |") } else { write!(text, " {cell:>width$} |") };
        }
        text.push('\n');
        if number == 0 {
            text.push('|');
            for (column, &width) in widths.iter().enumerate() {
                let _ =
                    write!(text, " {}{} |", "-".repeat(width.saturating_sub(1)), if column == 0 { '-' } else { ':' });
            }
            text.push('\n');
        }
    }
    text
}

fn first_line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.lines().next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn results() -> Results {
        let mut results = Results::default();
        results.record(Kind::Rate, "small-16", Contender::Bare, 1000.0);
        results.record(Kind::Rate, "small-16", Contender::Fast, 1670.0);
        results.record(Kind::Rate, "true-1", Contender::Fast, 5.0);
        results
    }

    #[test]
    fn tables_are_aligned_and_have_ratios() {
        let expected = "\
| programs a second, 1/s |        bare |        fast |
| ---------------------- | ----------: | ----------: |
| small-16               | 1000 (1.00) | 1670 (1.67) |
| true-1                 |           - |           5 |
(in brackets: of bare)

";
        assert_eq!(tables(&results()), expected);
        assert_eq!(tables(&Results::default()), "");
    }

    #[test]
    fn another_build_is_compared_with() {
        let mut results = results();
        assert_eq!(of_other(&results), "");
        results.record(Kind::Rate, "small-16", Contender::Other, 1000.0);
        let expected = "\
| beside the other build      | fast of other | fast v2 of other v2 |
| --------------------------- | ------------: | ------------------: |
| small-16, programs a second |         1.670 |                   - |

";
        assert_eq!(of_other(&results), expected);
    }

    #[test]
    fn goals_show_what_was_not_measured() {
        let goal = |measured| Goal { what: "rate", limit: Limit::AtLeast(1.5), measured, row: "small-16" };
        let table = goal_table(&[goal(Some(1.6)), goal(Some(1.4)), goal(None)]);
        let met: Vec<_> = table.lines().skip(2).filter_map(|line| line.split('|').nth(4)).map(str::trim).collect();
        assert_eq!(met, ["yes", "NO", "-"]);
        assert!(table.contains("not measured"), "{table}");
    }

    #[test]
    fn figures_are_replaced_between_the_marks() {
        let document = format!("# Title\n{BEGIN}\nold\n\n{END}The rest.\n");
        assert_eq!(replace(&document, "new\n\n"), Some(format!("# Title\n{BEGIN}\nnew\n\n{END}The rest.\n")));
        assert_eq!(replace("no marks", "new"), None);
        assert_eq!(replace(&format!("{END}{BEGIN}"), "new"), None);
    }

    #[test]
    fn the_document_holds_every_sample() {
        let effort = Effort { rounds: 1, slice: Duration::ZERO, bytes: 0, limit: Duration::ZERO };
        let document = document(&results(), &[], effort, 0.25);
        let rows = document["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[1]["contender"], "fast");
        assert_eq!(rows[1]["ratio"], 1.67);
        assert_eq!(rows[2]["ratio"], Value::Null);
        assert_eq!(document["machine"]["busy_before"], 0.25);
    }
}
