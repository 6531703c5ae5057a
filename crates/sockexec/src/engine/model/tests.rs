//! Sessions at random.

use arbitrary::{Arbitrary as _, Unstructured};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

/// Lives through what `bytes` stand for, as the fuzzer's target does.
fn live(bytes: &[u8]) -> Result<(), String> {
    let plan = Plan::arbitrary_take_rest(Unstructured::new(bytes)).map_err(|error| error.to_string())?;
    let case = Case::new(&plan.setup);
    World::new(&case).live(&plan).map_err(|violation| format!("{violation}: {plan:?}"))
}

/// The same cases in every run, unless `PROPTEST_RNG_SEED` asks for others.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let rng_seed = match default.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        RngSeed::Fixed(seed) => RngSeed::Fixed(seed),
    };
    // A session takes a tenth of a millisecond.
    ProptestConfig { rng_seed, cases: default.cases * 40, failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_sessions(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        live(&bytes).map_err(TestCaseError::fail)?;
    }
}
