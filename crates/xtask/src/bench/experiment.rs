//! The rows of the benchmark, and their names.

use super::Result;
use super::contender::Contender;
use super::program::Program;

/// A measurement, for all contenders that can take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Experiment {
    /// A program run again and again, this many at a time.
    Rate(Program, usize),
    /// A program that writes a lot, in large pieces.
    Stdout,
    /// A program that reads a lot.
    Stdin,
    /// A program that writes many short lines.
    Chatty,
    /// Memory idle and with many running programs.
    Memory,
    /// The rate beside many running programs.
    Beside,
}

/// All of them, in the order in which they are measured.
const ALL: [Experiment; 11] = [
    Experiment::Rate(Program::Small, 1),
    Experiment::Rate(Program::Small, 16),
    Experiment::Rate(Program::Small, 64),
    Experiment::Rate(Program::True, 1),
    Experiment::Rate(Program::True, 16),
    Experiment::Rate(Program::True, 64),
    Experiment::Stdout,
    Experiment::Stdin,
    Experiment::Chatty,
    Experiment::Memory,
    Experiment::Beside,
];

impl Experiment {
    /// Its name on the command line and in the tables.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Rate(Program::Small, at_a_time) => format!("small-{at_a_time}"),
            Self::Rate(Program::True, at_a_time) => format!("true-{at_a_time}"),
            Self::Stdout => "stdout".to_owned(),
            Self::Stdin => "stdin".to_owned(),
            Self::Chatty => "chatty".to_owned(),
            Self::Memory => "memory".to_owned(),
            Self::Beside => "beside".to_owned(),
        }
    }

    /// Whether one round is enough: memory does not depend on the machine's load.
    pub(crate) fn once(self) -> bool {
        self == Self::Memory
    }

    /// The contenders that can take part.
    pub(crate) const fn contenders(self) -> &'static [Contender] {
        use Contender::{
            Bare, Bare2, Clone, Fast, Fast2, Fork, Original, Other, Other2, Pipe1M, Pipe64K, S6, Socat, Ssh,
        };
        match self {
            Self::Rate(..) => &[Bare, Bare2, Fast, Fast2, Clone, Fork, Other, Other2, Original, Socat, S6, Ssh],
            // Both ways to start programs move bytes alike.
            Self::Stdout | Self::Stdin | Self::Chatty => {
                &[Pipe64K, Pipe1M, Fast, Fast2, Other, Other2, Original, Socat, S6, Ssh]
            }
            Self::Memory | Self::Beside => &[Fast, Clone, Fork, Other, Original],
        }
    }
}

/// The experiments whose name is in `names`, or begins with one of them and a hyphen; all if `names` is empty.
pub(crate) fn select(names: &[String]) -> Result<Vec<Experiment>> {
    for name in names {
        if !ALL.iter().any(|experiment| matches(*experiment, name)) {
            let known: Vec<_> = ALL.iter().map(|experiment| experiment.name()).collect();
            return Err(format!("unknown row {name:?}; known are {}", known.join(", ")).into());
        }
    }
    let wanted = |experiment: &Experiment| names.is_empty() || names.iter().any(|name| matches(*experiment, name));
    Ok(ALL.into_iter().filter(wanted).collect())
}

fn matches(experiment: Experiment, name: &str) -> bool {
    let full = experiment.name();
    full == name || full.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(asked: &[&str]) -> Vec<String> {
        let asked: Vec<_> = asked.iter().map(|&name| name.to_owned()).collect();
        select(&asked).unwrap().into_iter().map(Experiment::name).collect()
    }

    #[test]
    fn rows_are_chosen_by_name_or_by_its_beginning() {
        assert_eq!(names(&[]).len(), ALL.len());
        assert_eq!(names(&["true-1"]), ["true-1"]);
        assert_eq!(names(&["stdin", "small"]), ["small-1", "small-16", "small-64", "stdin"]);
        let error = select(&["std".to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with("unknown row \"std\"; known are small-1, "), "{error}");
    }
}
