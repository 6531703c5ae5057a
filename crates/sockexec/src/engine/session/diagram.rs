//! The transitions at the head of `session.rs`, and those that the model sees.

use std::any::type_name;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Debug;

/// `Program Absent Waiting`: a machine, a state, and the one after it.
type Transition = String;

thread_local! {
    /// None while no test watches: the model makes millions of transitions.
    static SEEN: RefCell<Option<BTreeSet<Transition>>> = const { RefCell::new(None) };
}

/// Notes that a machine goes from `state` to `next`.
pub(super) fn note<State: Debug>(state: &State, next: &State) {
    SEEN.with_borrow_mut(|seen| {
        if let Some(seen) = seen {
            let machine = type_name::<State>().rsplit("::").next().unwrap_or_default();
            let name = |state: &State| format!("{state:?}").split_whitespace().next().unwrap_or_default().to_owned();
            seen.insert(format!("{machine} {} {}", name(state), name(next)));
        }
    });
}

/// Returns the transitions of this thread's sessions while `work` runs.
pub(in crate::engine) fn watch(work: impl FnOnce()) -> BTreeSet<Transition> {
    SEEN.set(Some(BTreeSet::new()));
    work();
    SEEN.take().unwrap_or_default()
}

/// Returns the transitions at the head of `session.rs`.
pub(in crate::engine) fn drawn() -> BTreeSet<Transition> {
    let mut machine = "";
    let mut drawn = BTreeSet::new();
    for line in include_str!("../session.rs").lines().map_while(|line| line.strip_prefix("//!")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|&word| word == "->");
        let (Some(at), true) = (at, line.contains(" -> ")) else { continue };
        if let (2, Some(&name)) = (at, words.first()) {
            machine = name;
        }
        if let (Some(from), Some(to)) = (words.get(at - 1), words.get(at + 1)) {
            drawn.insert(format!("{machine} {from} {to}"));
        }
    }
    drawn
}
