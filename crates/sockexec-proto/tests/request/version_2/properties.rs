//! Any request, and any bytes, against the naive decoder.

use std::time::Duration;

use proptest::prelude::*;
use sockexec_proto::request::{EnvironmentChange, encode_request, encode_signal, encode_window_size, stdin_header};
use sockexec_proto::{Options, Signal, WindowSize};

use super::naive::{naive, request};
use super::{drive, input, place, start};
use crate::common::bytes::{any_bytes, any_cut, config};
use crate::common::drive::Cut;

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((1..=255_u8).prop_filter("no =", |&byte| byte != b'='), 1..8)
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1..=255_u8, 0..12)
}

fn change() -> impl Strategy<Value = EnvironmentChange> {
    prop_oneof![
        (name(), text()).prop_map(|(name, value)| EnvironmentChange::Set(name, value)),
        name().prop_map(EnvironmentChange::Unset),
        Just(EnvironmentChange::Clear),
    ]
}

fn window_size() -> impl Strategy<Value = WindowSize> {
    any::<(u16, u16)>().prop_map(|(columns, rows)| WindowSize { columns, rows })
}

fn options() -> impl Strategy<Value = Options> {
    let directory = prop::option::of(text().prop_filter("not empty", |path| !path.is_empty()));
    let timeout = prop::option::of((0..1_000_000_u64, 1..1_000_000_000_u32));
    let streams = prop_oneof![
        any::<bool>().prop_map(|merged| (merged, None, false, false)),
        (any::<bool>(), window_size(), any::<bool>()).prop_map(|(merged, size, utf8)| (
            merged,
            Some(size),
            utf8,
            false
        )),
        Just((false, None, false, true)),
    ];
    (directory, prop::collection::vec(change(), 0..6), timeout, streams).prop_map(
        |(directory, environment, timeout, (stderr_to_stdout, pty, utf8, descriptors))| Options {
            directory: directory.and_then(|path| std::ffi::CString::new(path).ok()),
            environment,
            timeout: timeout.map(|(seconds, nanoseconds)| Duration::new(seconds, nanoseconds)),
            stderr_to_stdout,
            pty,
            utf8,
            descriptors,
        },
    )
}

fn tagged() -> impl Strategy<Value = Vec<u8>> {
    let signal = prop_oneof![
        (1..200_i32).prop_map(Signal::Number),
        "[A-Z]{1,6}([+-][0-9])?".prop_map(|name| Signal::Name(name.into_bytes())),
    ];
    let stdin = prop::collection::vec(any::<u8>(), 0..10).prop_map(|bytes| {
        let mut out = stdin_header(bytes.len() as u64).as_bytes().to_vec();
        out.extend_from_slice(&bytes);
        out.push(b',');
        out
    });
    let signal = signal.prop_map(|signal| {
        let mut out = Vec::new();
        encode_signal(&signal, &mut out);
        out
    });
    let size = window_size().prop_map(|size| {
        let mut out = Vec::new();
        encode_window_size(size, &mut out);
        out
    });
    prop::collection::vec(prop_oneof![stdin, signal, size], 0..6).prop_map(|pairs| pairs.concat())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_a_client_sends_the_daemon_reads(
        options in options(),
        argv in prop::collection::vec(text(), 1..6),
        cut in any_cut(),
    ) {
        let mut bytes = Vec::new();
        encode_request(&options, &argv, &mut bytes);
        let outcome = drive(&bytes, &cut);
        prop_assert_eq!(outcome.seen, [start(options, &argv)]);
        prop_assert_eq!(outcome.verdict, Ok(place(&bytes, false, Ok(()))));
    }

    #[test]
    fn any_input_is_judged_as_the_naive_decoder_judges_it(rest in any_bytes(tagged()), cut in any_cut()) {
        let bytes = [request(), rest].concat();
        prop_assert_eq!(drive(&bytes, &cut), naive(&bytes));
    }

    #[test]
    fn any_bytes_after_the_first_netstring_are_judged_alike_in_any_cut(rest in any_bytes(tagged()), cut in any_cut()) {
        let bytes = input(&[], &rest);
        prop_assert_eq!(drive(&bytes, &cut), drive(&bytes, &Cut::of(&[bytes.len()])));
    }
}
