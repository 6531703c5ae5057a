//! All decoders of both versions on arbitrary bytes: however the bytes are cut, the same is found in
//! them, and the same fault at the same byte.
#![no_main]

// The library's tests drive the decoders with it too. It asserts what must hold after every call.
#[path = "../../crates/sockexec-proto/tests/common/drive.rs"]
mod drive;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sockexec_proto::reply::Event;
use sockexec_proto::{ReplyDecoder, RequestDecoder, Version, netstring};

use drive::{Cut, Decoder, OutcomeOf, Seen, Source, drive};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    /// The sizes of the pieces.
    sizes: Vec<u8>,
    /// The most payload that is taken at once; 0: all that is there.
    taken: u8,
    bytes: &'a [u8],
}

/// Returns what the bytes of `input` say.
fn compare<D: Decoder>(new: impl Fn() -> D, input: &Input<'_>) -> OutcomeOf<D> {
    let whole = drive(new(), input.bytes, &Cut::of(&[input.bytes.len()]));
    let bytewise = drive(new(), input.bytes, &Cut::of(&[1]));
    assert_eq!(whole, bytewise, "byte by byte");
    // Sizes that are all 0 would get nowhere.
    let last = usize::from(input.sizes.last().copied().unwrap_or(7)).max(1);
    let sizes = input.sizes.iter().map(|&size| size.into()).chain([last]).collect();
    let most = if input.taken == 0 { usize::MAX } else { input.taken.into() };
    let split = drive(new(), input.bytes, &Cut { sizes, most });
    assert_eq!(whole, split, "as split");
    whole.0
}

fuzz_target!(|input: Input<'_>| {
    compare(|| netstring::Decoder::new(19), &input);
    compare(RequestDecoder::new, &input);
    compare(|| ReplyDecoder::of(Version::Two), &input);
    let version_1 = compare(|| ReplyDecoder::of(Version::One), &input);
    for seen in version_1.seen {
        assert!(
            matches!(seen, Seen::Payload(Source::Output(_) | Source::Unknown, ..) | Seen::Event(Event::Exit(_))),
            "{seen:?} in version 1"
        );
    }
});
