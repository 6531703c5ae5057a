//! Any reply, and any bytes, against the naive decoder.

use proptest::prelude::*;
use sockexec_proto::netstring;
use sockexec_proto::reply::{EXITCODE, Event, Header, TERMSIG, encode_pair};
use sockexec_proto::{Exit, Signal, Stream};

use super::drive;
use super::naive::naive;
use crate::common::bytes::{any_bytes, any_cut, config};
use crate::common::drive::Source;
use crate::{Seen, pair, payload, place};

fn any_exit() -> impl Strategy<Value = Exit> {
    prop_oneof![
        any::<u8>().prop_map(Exit::Code),
        (1..=i32::MAX, 0..31_u32).prop_map(|(n, shift)| Exit::Signal(Signal::Number((n >> shift).max(1)))),
        "[A-Z]{1,8}([+-][0-9]{1,2})?|[?]{3}".prop_map(|name| Exit::Signal(Signal::Name(name.into_bytes()))),
    ]
}

fn any_pair() -> impl Strategy<Value = Seen> {
    let bytes = prop::collection::vec(any::<u8>(), 1..14);
    let source =
        prop_oneof![Just(Source::Output(Stream::Stdout)), Just(Source::Output(Stream::Stderr)), Just(Source::Unknown)];
    prop_oneof![
        3 => (source, bytes).prop_map(|(source, bytes)| payload(source, &bytes)),
        1 => any_exit().prop_map(super::exit),
    ]
}

/// Streams through [`Header`], as the daemon writes them, and the rest through [`encode_pair`].
fn encode(pairs: &[Seen]) -> Vec<u8> {
    let mut wire = Vec::new();
    for pair in pairs {
        match pair {
            Seen::Payload(Source::Output(stream), announced, bytes) => {
                wire.extend_from_slice(Header::new(*stream, *announced).as_bytes());
                wire.extend_from_slice(bytes);
                wire.push(netstring::TERMINATOR);
            }
            Seen::Payload(_, _, bytes) => encode_pair("started", bytes, &mut wire),
            Seen::Event(Event::Exit(Exit::Code(code))) => encode_pair(EXITCODE, code.to_string().as_bytes(), &mut wire),
            Seen::Event(Event::Exit(Exit::Signal(Signal::Number(number)))) => {
                encode_pair(TERMSIG, number.to_string().as_bytes(), &mut wire);
            }
            Seen::Event(Event::Exit(Exit::Signal(Signal::Name(name)))) => encode_pair(TERMSIG, name, &mut wire),
            Seen::Event(event) => unreachable!("version 2: {event:?}"),
        }
    }
    wire
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_the_daemon_sends_a_client_reads(
        pairs in prop::collection::vec(any_pair(), 0..12),
        cut in any_cut(),
    ) {
        let bytes = encode(&pairs);
        let outcome = drive(&bytes, &cut);
        prop_assert_eq!(outcome.seen, pairs);
        prop_assert_eq!(outcome.verdict, Ok(place(bytes.len(), true)));
    }

    #[test]
    fn a_header_and_a_payload_are_what_encode_pair_writes(
        stderr in any::<bool>(),
        payload in prop::collection::vec(any::<u8>(), 0..1200),
    ) {
        let stream = if stderr { Stream::Stderr } else { Stream::Stdout };
        let mut bytes = Header::new(stream, payload.len() as u64).as_bytes().to_vec();
        bytes.extend_from_slice(&payload);
        bytes.push(netstring::TERMINATOR);
        prop_assert_eq!(bytes, pair(stream.tag(), &payload));
    }

    #[test]
    fn any_bytes_are_judged_as_the_naive_decoder_judges_them(
        bytes in any_bytes(prop::collection::vec(any_pair(), 0..6).prop_map(|pairs| encode(&pairs))),
        cut in any_cut(),
    ) {
        prop_assert_eq!(drive(&bytes, &cut), naive(&bytes));
    }

    #[test]
    fn any_tag_and_status_are_judged_as_the_naive_decoder_judges_them(
        tag in "exitcode|termsig|stdout|[a-z]{0,70}",
        status in "0{0,3}|[0-9]{0,12}|[0-9A-Z+?-]{0,8}|[ -~]{0,70}",
        cut in any_cut(),
    ) {
        let bytes = pair(&tag, status.as_bytes());
        prop_assert_eq!(drive(&bytes, &cut), naive(&bytes));
    }
}
