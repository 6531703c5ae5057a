//! Any reply, and any bytes, against the naive decoder.

use proptest::prelude::*;
use sockexec_proto::error::BadReplyKind as Kind;
use sockexec_proto::reply::{
    self, Event, Header, encode_error, encode_exit, encode_input_closed, encode_pair, encode_queued, encode_started,
    encode_taken, encode_usage,
};
use sockexec_proto::{ErrorCode, Exit, Stream, Usage};

use super::naive::naive;
use super::{drive, failure, started, usage};
use crate::common::bytes::{any_bytes, any_cut, config};
use crate::common::drive::Cut;
use crate::{Seen, place};

fn any_pair() -> impl Strategy<Value = Vec<u8>> {
    let stream = || prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)];
    let encoded = |encode: fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        bytes
    };
    prop_oneof![
        (stream(), prop::collection::vec(any::<u8>(), 0..10)).prop_map(|(stream, payload)| {
            let mut bytes = Header::new(stream, payload.len() as u64).as_bytes().to_vec();
            bytes.extend_from_slice(&payload);
            bytes.push(b',');
            bytes
        }),
        Just(encoded(|out| encode_pair(reply::PROTOCOL, b"2", out))),
        Just(encoded(|out| encode_queued(5, out))),
        Just(encoded(|out| encode_taken(6, out))),
        Just(encoded(encode_input_closed)),
        Just(encoded(|out| encode_started(77, out))),
        Just(encoded(|out| encode_error(&ErrorCode::Timeout, b"late", out))),
        Just(encoded(|out| encode_usage(&Usage::default(), out))),
        Just(encoded(|out| encode_exit(&Exit::Code(1), out))),
        Just(encoded(|out| encode_pair("status", b"{}", out))),
        Just(encoded(|out| encode_pair("later", b"12", out))),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_judged_as_the_naive_decoder_judges_them(
        bytes in any_bytes(prop::collection::vec(any_pair(), 0..6).prop_map(|pairs| pairs.concat())),
        cut in any_cut(),
    ) {
        let (read, expected) = (drive(&bytes, &cut), naive(&bytes));
        // A usage or an introduction may be valid after the damage, which the naive decoder cannot tell.
        let is_unsure = |kind: &Kind| matches!(kind, Kind::Usage(_) | Kind::Introduction(_));
        prop_assume!(!expected.verdict.as_ref().is_err_and(|fault| is_unsure(&fault.kind)));
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn any_bytes_are_judged_alike_however_they_are_cut(
        bytes in any_bytes(prop::collection::vec(any_pair(), 0..6).prop_map(|pairs| pairs.concat())),
        cut in any_cut(),
    ) {
        prop_assert_eq!(drive(&bytes, &cut), drive(&bytes, &Cut::of(&[bytes.len()])));
    }

    #[test]
    fn what_the_daemon_sends_a_client_reads(
        pid in 1..=u32::MAX,
        text in prop::collection::vec(any::<u8>(), 0..40),
        (user, system, rss) in (0..10_u64.pow(15), 0..10_u64.pow(15), any::<u64>()),
        cut in any_cut(),
    ) {
        let mut bytes = Vec::new();
        encode_started(pid, &mut bytes);
        encode_error(&ErrorCode::Shutdown, &text, &mut bytes);
        encode_usage(&usage(user, system, rss), &mut bytes);
        let expected =
            [started(pid), failure(ErrorCode::Shutdown, &text), Seen::Event(Event::Usage(usage(user, system, rss)))];
        let outcome = drive(&bytes, &cut);
        prop_assert_eq!(outcome.seen, expected);
        prop_assert_eq!(outcome.verdict, Ok(place(bytes.len(), true)));
    }
}
