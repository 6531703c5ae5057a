//! What the tests of the decoders share.

pub(crate) mod bytes;
pub(crate) mod drive;
pub(crate) mod naive;

use drive::{Cut, Decoder, OutcomeOf, drive};

/// Inputs up to this length are also split in two at every position, and their payloads taken byte by byte.
/// Miri is some thousand times slower.
const SHORT: usize = if cfg!(miri) { 2 } else { 80 };

/// Bytes that must not change a verdict that has been reached.
pub(crate) const TRAILING: [&[u8]; 5] = [b",", b"0:,", b"3:abc,", b"00", b"\0\xff\xff\xff\xff\xff\xff\xff\xff"];

/// The ways to feed an input of `len` bytes.
fn cuts(len: usize) -> Vec<Cut> {
    let mut cuts = vec![Cut::of(&[len]), Cut::of(&[1])];
    if len <= SHORT {
        cuts.push(Cut { most: 1, ..Cut::of(&[len]) });
        cuts.extend((0..=len).map(|first| Cut::of(&[first, len - first])));
    }
    cuts
}

/// Asserts that `input` says `expected`, however it is cut.
pub(crate) fn check<D: Decoder>(new: impl Fn() -> D, input: &[u8], expected: &OutcomeOf<D>) {
    let mut first = None;
    for cut in cuts(input.len()) {
        let (outcome, consumed) = drive(new(), input, &cut);
        assert_eq!(outcome, *expected, "\"{}\" in {cut:?}", input.escape_ascii());
        assert_eq!(consumed, *first.get_or_insert(consumed), "\"{}\" in {cut:?}", input.escape_ascii());
    }
}

/// Asserts that `input` is refused at its last byte and not before, whatever follows.
pub(crate) fn check_refused<D: Decoder>(new: impl Fn() -> D, input: &[u8], refused: &OutcomeOf<D>) {
    assert!(refused.verdict.is_err(), "\"{}\": {refused:?}", input.escape_ascii());
    check(&new, input, refused);
    for trailing in TRAILING {
        check(&new, &[input, trailing].concat(), refused);
    }
    // The longest of these shows that none is refused; the others are ends of file at every place.
    let shortest = if cfg!(miri) { input.len() - 1 } else { 0 };
    for len in shortest..input.len() {
        let (before, _) = drive(new(), &input[..len], &Cut::of(&[1]));
        assert!(before.verdict.is_ok(), "\"{}\": {before:?}", input[..len].escape_ascii());
    }
}
