//! Options that are requested only if the daemon allows them. So the request waits for the introduction,
//! after its first netstring.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use sockexec_proto::reply::Introduction;
use sockexec_proto::request::{self, EnvironmentChange};
use sockexec_proto::{Options, Version};

/// Options that are left out if the daemon does not know them, or a rule of its operator forbids them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// `TERM` of a program with a terminal.
    pub(super) terminal_type: Option<Vec<u8>>,
    pub(super) utf8: bool,
}

impl Wishes {
    pub(super) const fn is_empty(&self) -> bool {
        self.terminal_type.is_none() && !self.utf8
    }

    /// Adds those that the daemon allows to `options`.
    fn grant(&self, options: &mut Options, introduction: &Introduction) {
        options.utf8 |= self.utf8 && introduction.allows("utf8");
        if let Some(name) = self.terminal_type.as_ref().filter(|_| introduction.allows("env")) {
            // It belongs to the terminal, not to the environment that is emptied. Other changes of the
            // variable override it.
            let changes = &mut options.environment;
            let cleared = changes.iter().rposition(|change| *change == EnvironmentChange::Clear);
            let set = EnvironmentChange::Set(b"TERM".to_vec(), name.clone());
            changes.insert(cleared.map_or(0, |cleared| cleared + 1), set);
        }
    }
}

/// The part of a request that waits for the introduction.
#[derive(Debug)]
pub(super) struct Rest {
    options: Options,
    argv: Vec<OsString>,
    wishes: Wishes,
    /// What to send after it.
    pub(super) behind: Vec<u8>,
}

impl Rest {
    pub(super) fn new(options: &Options, argv: &[OsString], wishes: &Wishes) -> Self {
        Self { options: options.clone(), argv: argv.to_vec(), wishes: wishes.clone(), behind: Vec::new() }
    }

    /// Everything to send after [`opening`].
    pub(super) fn into_bytes(mut self, introduction: &Introduction) -> Vec<u8> {
        self.wishes.grant(&mut self.options, introduction);
        let mut bytes = encode(Version::Two, &self.options, &self.argv);
        bytes.drain(..opening().len());
        bytes.append(&mut self.behind);
        bytes
    }
}

/// How every request of version 2 begins.
pub(super) fn opening() -> Vec<u8> {
    let mut bytes = Vec::new();
    request::encode_ping(&mut bytes);
    bytes
}

/// What makes the daemon start the program. `options` are sent in version 2 only.
pub(super) fn encode(version: Version, options: &Options, argv: &[OsString]) -> Vec<u8> {
    let argv: Vec<&[u8]> = argv.iter().map(|argument| argument.as_bytes()).collect();
    let mut bytes = Vec::new();
    match version {
        Version::One => request::encode_exec(&argv, &mut bytes),
        Version::Two => request::encode_request(options, &argv, &mut bytes),
    }
    bytes
}
