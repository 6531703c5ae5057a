//! The names of signals, one table for the daemon and the client. `docs/protocol.md` lists them.

use rustix::process::Signal;

/// Each signal of this system that has a name, without `SIG`. One name each: of IOT and ABRT, CLD and CHLD,
/// POLL and IO only the second.
pub(crate) const NAMES: &[(&str, Signal)] = &[
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("BUS", Signal::BUS),
    ("CHLD", Signal::CHILD),
    ("CONT", Signal::CONT),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("IO", Signal::IO),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("PROF", Signal::PROF),
    #[cfg(any(target_os = "linux", target_os = "android"))]
    ("PWR", Signal::POWER),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    #[cfg(any(target_os = "linux", target_os = "android"))]
    ("STKFLT", Signal::STKFLT),
    ("STOP", Signal::STOP),
    ("SYS", Signal::SYS),
    ("TERM", Signal::TERM),
    ("TRAP", Signal::TRAP),
    ("TSTP", Signal::TSTP),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("URG", Signal::URG),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("VTALRM", Signal::VTALARM),
    ("WINCH", Signal::WINCH),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
];

/// The number of the signal of this name.
pub(crate) fn number(name: &[u8]) -> Option<i32> {
    NAMES.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, signal)| signal.as_raw())
}

/// The name of the signal of this number.
pub(crate) fn name(number: i32) -> Option<&'static str> {
    NAMES.iter().find(|(_, signal)| signal.as_raw() == number).map(|&(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row by row what the document lists, and nothing else.
    #[test]
    #[cfg_attr(miri, ignore = "reads a file")]
    fn the_document_lists_them() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (_, rest) = document.split_once("The names of signals are these").unwrap();
        let lines =
            rest.lines().skip_while(|line| !line.starts_with("    ")).take_while(|line| line.starts_with("    "));
        let listed: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
        let known: Vec<&str> = NAMES.iter().map(|&(name, _)| name).collect();
        // Other systems lack some.
        if cfg!(target_os = "linux") {
            assert_eq!(known, listed);
        }
    }

    #[test]
    fn a_name_and_its_number_lead_to_each_other() {
        for &(text, signal) in NAMES {
            assert_eq!((number(text.as_bytes()), name(signal.as_raw())), (Some(signal.as_raw()), Some(text)));
        }
        assert_eq!((number(b"SIGTERM"), number(b"term"), number(b""), name(0)), (None, None, None, None));
    }
}
