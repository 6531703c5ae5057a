//! What the tests of the three decoders share: ways to cut an input, a naive decoder of netstrings,
//! and bytes to try them on.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;
use sockexec_proto::netstring::{ErrorKind, MAX_LEN};

/// Inputs up to here are also split in two at every position; few under Miri, which is some thousand times slower.
const SHORT: usize = if cfg!(miri) { 2 } else { 80 };

/// Bytes that must not change a verdict that has been reached.
pub(crate) const TRAILING: [&[u8]; 5] = [b",", b"0:,", b"3:abc,", b"00", b"\0\xff\xff\xff\xff\xff\xff\xff\xff"];

/// The sizes of pieces, to be used in turn, for every way in which an input of `len` bytes is fed.
pub(crate) fn cuts(len: usize) -> Vec<Vec<usize>> {
    let mut cuts = vec![vec![len], vec![1]];
    if len <= SHORT {
        cuts.extend((0..=len).map(|first| vec![first, len - first]));
    }
    cuts
}

/// `input` in pieces of these sizes, used in turn until it is exhausted. At least one piece.
pub(crate) fn pieces<'a>(input: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut sizes = sizes.iter().cycle();
    let mut rest = Some(input);
    std::iter::from_fn(move || {
        let input = rest?;
        let (piece, tail) = input.split_at(input.len().min(*sizes.next()?));
        rest = Some(tail).filter(|tail| !tail.is_empty());
        Some(piece)
    })
}

/// Why the naive decoder went no further.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop<E> {
    /// The input ends here.
    Short,
    /// This is wrong at this offset.
    Bad(E, u64),
}

/// Reads `LEN ":"` at `at`: the length, and where the payload starts.
///
/// It lists every fault that the bytes have and takes the first in the input.
pub(crate) fn naive_head<E>(
    input: &[u8],
    at: usize,
    max_digits: usize,
    framing: fn(ErrorKind) -> E,
) -> Result<(u64, usize), Stop<E>> {
    let rest = &input[at..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = |digits: usize| {
        // Only digits, and what has too many of them for u128 is over the limit as well.
        String::from_utf8_lossy(&rest[..digits]).parse().unwrap_or(u128::MAX)
    };

    let mut faults = Vec::new();
    if digits > 1 && rest[0] == b'0' {
        faults.push((1, ErrorKind::LeadingZero));
    }
    if digits > max_digits {
        let limit = u8::try_from(max_digits).unwrap_or(u8::MAX);
        faults.push((max_digits, ErrorKind::TooManyDigits(limit)));
    }
    if let Some(few) = (1..=digits).find(|&few| value(few) > u128::from(MAX_LEN)) {
        faults.push((few - 1, ErrorKind::TooLong));
    }
    match rest.get(digits) {
        Some(&byte) if digits == 0 => faults.push((0, ErrorKind::NoLength(byte))),
        Some(&byte) if byte != b':' => faults.push((digits, ErrorKind::NoColon(byte))),
        Some(_) | None => {}
    }

    // The first of those at the same place, so the order above counts.
    if let Some((index, kind)) = faults.into_iter().min_by_key(|(index, _)| *index) {
        return Err(Stop::Bad(framing(kind), (at + index) as u64));
    }
    if digits == rest.len() {
        return Err(Stop::Short);
    }
    Ok((u64::try_from(value(digits)).unwrap_or(u64::MAX), at + digits + 1))
}

/// As much as there is of the payload that starts at `start`.
pub(crate) fn naive_payload(input: &[u8], start: usize, len: u64) -> &[u8] {
    let rest = &input[start..];
    &rest[..rest.len().min(usize::try_from(len).unwrap_or(usize::MAX))]
}

/// Reads the comma of the payload that starts at `start`: where the next netstring starts.
pub(crate) fn naive_comma<E>(
    input: &[u8],
    start: usize,
    len: u64,
    framing: fn(ErrorKind) -> E,
) -> Result<usize, Stop<E>> {
    let end = usize::try_from(start as u64 + len).unwrap_or(usize::MAX);
    match input.get(end) {
        None => Err(Stop::Short),
        Some(b',') => Ok(end + 1),
        Some(&byte) => Err(Stop::Bad(framing(ErrorKind::NoComma(byte)), end as u64)),
    }
}

/// The same cases in every run, unless `PROPTEST_RNG_SEED` asks for others.
pub(crate) fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let rng_seed = match default.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        RngSeed::Fixed(seed) => RngSeed::Fixed(seed),
    };
    // The inputs are short, so there is time for more of them than is usual; under Miri for few.
    let cases = if cfg!(miri) { 4 } else { default.cases * 8 };
    ProptestConfig { rng_seed, cases, failure_persistence: None, ..default }
}

/// Sizes for [`pieces`], empty pieces among them.
pub(crate) fn sizes() -> impl Strategy<Value = Vec<usize>> {
    // Sizes that are all 0 would get nowhere.
    (prop::collection::vec(0..12_usize, 0..6), 1..40_usize).prop_map(|(mut sizes, last)| {
        sizes.push(last);
        sizes
    })
}

/// Mostly bytes that mean something in the framing.
fn telling_byte() -> impl Strategy<Value = u8> {
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
        (any::<Index>(), telling_byte()).prop_map(|(place, byte)| Damage::Put(place, byte)),
        (any::<Index>(), telling_byte()).prop_map(|(place, byte)| Damage::Insert(place, byte)),
        any::<Index>().prop_map(Damage::Remove),
        any::<Index>().prop_map(Damage::CutAt),
    ]
}

/// `valid` inputs as they are and with a few bytes changed, and bytes that never were valid.
pub(crate) fn any_bytes(valid: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let damaged = (valid, prop::collection::vec(damage(), 0..4)).prop_map(|(mut bytes, damages)| {
        for damage in damages {
            damage.apply(&mut bytes);
        }
        bytes
    });
    prop_oneof![8 => damaged, 1 => prop::collection::vec(telling_byte(), 0..60)]
}
