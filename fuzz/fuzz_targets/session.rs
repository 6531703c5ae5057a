//! Whole sessions of the engine, in the world that `sockexec::model` makes for them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockexec::model::{Case, Plan, World};

fuzz_target!(|plan: Plan| {
    let case = Case::new(&plan.setup);
    if let Err(violation) = World::new(&case).live(&plan) {
        panic!("{violation}");
    }
});
