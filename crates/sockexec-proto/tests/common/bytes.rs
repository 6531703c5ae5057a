//! Bytes to try the decoders on, and ways to cut them.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;

use super::drive::Cut;

/// The same cases in every run, unless `PROPTEST_RNG_SEED` asks for others.
pub(crate) fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let rng_seed = match default.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        RngSeed::Fixed(seed) => RngSeed::Fixed(seed),
    };
    // The inputs are short, so there is time for more cases than usual, but not under Miri.
    let cases = if cfg!(miri) { 4 } else { default.cases * 8 };
    ProptestConfig { rng_seed, cases, failure_persistence: None, ..default }
}

/// Any [`Cut`], with empty pieces too.
pub(crate) fn any_cut() -> impl Strategy<Value = Cut> {
    let sizes = prop::collection::vec(0..12_usize, 0..6);
    let most = prop_oneof![Just(usize::MAX), 1..12_usize];
    (sizes, 1..40_usize, most).prop_map(|(mut sizes, last, most)| {
        // Sizes that are all 0 would get nowhere.
        sizes.push(last);
        Cut { sizes, most }
    })
}

/// Mostly bytes of the framing.
fn framing_byte() -> impl Strategy<Value = u8> {
    prop_oneof![8 => select(b"0123456789:,".as_slice()), 1 => any::<u8>()]
}

#[derive(Debug, Clone)]
enum Damage {
    Put(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    CutAt(Index),
}

impl Damage {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Insert(place, byte) => bytes.insert(place.index(bytes.len() + 1), byte),
            Self::CutAt(place) => bytes.truncate(place.index(bytes.len() + 1)),
            Self::Put(..) | Self::Remove(_) if bytes.is_empty() => {}
            Self::Put(place, byte) => {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            Self::Remove(place) => {
                bytes.remove(place.index(bytes.len()));
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<Index>(), framing_byte()).prop_map(|(place, byte)| Damage::Put(place, byte)),
        (any::<Index>(), framing_byte()).prop_map(|(place, byte)| Damage::Insert(place, byte)),
        any::<Index>().prop_map(Damage::Remove),
        any::<Index>().prop_map(Damage::CutAt),
    ]
}

/// `valid` inputs, some with a few bytes changed, and bytes that were never valid.
pub(crate) fn any_bytes(valid: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let damaged = (valid, prop::collection::vec(damage(), 0..4)).prop_map(|(mut bytes, damages)| {
        for damage in damages {
            damage.apply(&mut bytes);
        }
        bytes
    });
    prop_oneof![8 => damaged, 1 => prop::collection::vec(framing_byte(), 0..60)]
}
