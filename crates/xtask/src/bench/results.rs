//! The figures that were measured.

use super::contender::Contender;
use super::stats::{median, ratio};

/// A kind of figure. Each kind has its own table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Programs a second.
    Rate,
    /// From connect to the end of the connection.
    Latency,
    /// CPU time of the daemon for each program, without the program's own.
    Cpu,
    /// Bytes of a stream a second.
    Bytes,
    /// CPU time of the daemon for each byte of a stream.
    BytesCpu,
    /// Resident memory of the daemon.
    Memory,
    /// The rate beside many running programs, as part of the rate alone.
    Beside,
}

impl Kind {
    /// All of them, in the order of the report.
    pub(crate) const ALL: [Self; 7] =
        [Self::Rate, Self::Latency, Self::Cpu, Self::Bytes, Self::BytesCpu, Self::Memory, Self::Beside];

    /// The head of its table.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Rate => "programs a second",
            Self::Latency => "latency",
            Self::Cpu => "daemon CPU a program",
            Self::Bytes => "bytes a second",
            Self::BytesCpu => "daemon CPU a byte",
            Self::Memory => "daemon memory",
            Self::Beside => "rate beside running programs",
        }
    }

    /// The unit of its figures.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Rate => "1/s",
            Self::Latency | Self::Cpu => "us",
            Self::Bytes => "MB/s",
            Self::BytesCpu => "s/GB",
            Self::Memory => "KB",
            Self::Beside => "of the rate alone",
        }
    }

    /// How many decimals its figures have.
    pub(crate) const fn decimals(self) -> usize {
        match self {
            Self::Rate | Self::Latency | Self::Bytes => 0,
            Self::Cpu => 1,
            Self::BytesCpu | Self::Memory | Self::Beside => 2,
        }
    }

    /// The contender with which the others are compared.
    pub(crate) const fn base(self) -> Option<Contender> {
        match self {
            Self::Rate | Self::Latency => Some(Contender::Bare),
            Self::Bytes => Some(Contender::Pipe1M),
            Self::Cpu | Self::BytesCpu | Self::Memory | Self::Beside => None,
        }
    }
}

/// One row of one contender: a sample for each round.
#[derive(Debug)]
pub(crate) struct Cell {
    /// The kind of figure.
    pub(crate) kind: Kind,
    /// The row's name.
    pub(crate) row: String,
    /// The contender that was measured.
    pub(crate) contender: Contender,
    /// In the order of the rounds.
    pub(crate) samples: Vec<f64>,
}

/// All figures.
#[derive(Debug, Default)]
pub(crate) struct Results {
    cells: Vec<Cell>,
    absent: Vec<String>,
}

impl Results {
    /// Notes that a contender does not take part, and why.
    pub(crate) fn leave_out(&mut self, contender: Contender, reason: &str) {
        self.absent.push(format!("{}: {reason}", contender.name()));
    }

    /// The contenders that do not take part, and why.
    pub(crate) fn absent(&self) -> &[String] {
        &self.absent
    }

    /// Adds the figure of a round.
    pub(crate) fn record(&mut self, kind: Kind, row: &str, contender: Contender, figure: f64) {
        if let Some(cell) = self.cells.iter_mut().find(|cell| cell.is(kind, row, contender)) {
            return cell.samples.push(figure);
        }
        self.cells.push(Cell { kind, row: row.to_owned(), contender, samples: vec![figure] });
    }

    /// The rows of a kind, in the order in which they were first measured.
    pub(crate) fn rows(&self, kind: Kind) -> Vec<&str> {
        let mut rows = Vec::new();
        for cell in self.cells.iter().filter(|cell| cell.kind == kind) {
            if !rows.contains(&cell.row.as_str()) {
                rows.push(cell.row.as_str());
            }
        }
        rows
    }

    /// The contenders that have a figure of a kind.
    pub(crate) fn contenders(&self, kind: Kind) -> Vec<Contender> {
        let mut contenders: Vec<_> =
            self.cells.iter().filter(|cell| cell.kind == kind).map(|cell| cell.contender).collect();
        contenders.sort_unstable();
        contenders.dedup();
        contenders
    }

    /// The samples of one row of one contender; empty if it was not measured.
    pub(crate) fn samples(&self, kind: Kind, row: &str, contender: Contender) -> &[f64] {
        self.cells.iter().find(|cell| cell.is(kind, row, contender)).map_or(&[], |cell| &cell.samples)
    }

    /// The median of a row.
    pub(crate) fn median(&self, kind: Kind, row: &str, contender: Contender) -> Option<f64> {
        median(self.samples(kind, row, contender))
    }

    /// How one contender compares with another, round by round.
    pub(crate) fn ratio(&self, kind: Kind, row: &str, contender: Contender, base: Contender) -> Option<f64> {
        ratio(self.samples(kind, row, contender), self.samples(kind, row, base))
    }
}

impl Cell {
    fn is(&self, kind: Kind, row: &str, contender: Contender) -> bool {
        self.kind == kind && self.row == row && self.contender == contender
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_kept_by_row_and_contender() {
        let mut results = Results::default();
        for (contender, figures) in [(Contender::Fast, [150.0, 90.0]), (Contender::Bare, [100.0, 50.0])] {
            for figure in figures {
                results.record(Kind::Rate, "small-16", contender, figure);
            }
        }
        results.record(Kind::Rate, "true-1", Contender::Bare, 7.0);
        assert_eq!(results.rows(Kind::Rate), ["small-16", "true-1"]);
        assert_eq!(results.contenders(Kind::Rate), [Contender::Bare, Contender::Fast]);
        assert_eq!(results.median(Kind::Rate, "small-16", Contender::Fast), Some(120.0));
        assert_eq!(results.ratio(Kind::Rate, "small-16", Contender::Fast, Contender::Bare), Some(1.65));
        assert_eq!(results.median(Kind::Rate, "true-1", Contender::Fast), None);
        assert_eq!(results.rows(Kind::Memory), [""; 0]);
    }
}
