//! Random sessions, and those in the fuzzer's corpus.

use std::fs;
use std::path::Path;

use arbitrary::{Arbitrary as _, Unstructured};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

/// Lives through the plan in `bytes`, as the fuzzer's target does.
fn live(bytes: &[u8]) -> Result<(), String> {
    let plan = Plan::arbitrary_take_rest(Unstructured::new(bytes)).map_err(|error| error.to_string())?;
    let case = Case::new(&plan.setup);
    World::new(&case).live(&plan).map_err(|violation| format!("{violation}: {plan:?}"))
}

/// The fuzzer keeps each session that reached something new.
#[test]
#[cfg_attr(miri, ignore = "reads files; random_sessions must do")]
fn corpus() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/session");
    let mut sessions = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        live(&fs::read(&path).unwrap()).unwrap_or_else(|violation| panic!("{}: {violation}", path.display()));
        sessions += 1;
    }
    assert!(sessions > 10, "only {sessions} sessions in {}", directory.display());
}

/// The same cases in every run, unless `PROPTEST_RNG_SEED` asks for others.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let rng_seed = match default.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        RngSeed::Fixed(seed) => RngSeed::Fixed(seed),
    };
    // A session takes a tenth of a millisecond, and most of a second under Miri.
    let cases = if cfg!(miri) { 8 } else { default.cases * 40 };
    ProptestConfig { rng_seed, cases, failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_sessions(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        live(&bytes).map_err(TestCaseError::fail)?;
    }
}
