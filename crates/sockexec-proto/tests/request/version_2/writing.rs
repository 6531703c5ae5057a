//! What a client writes.

use std::time::Duration;

use sockexec_proto::request::{
    self, END_OF_TAGGED_STDIN, EnvironmentChange, encode_request, encode_signal, encode_status, encode_window_size,
    stdin_header,
};
use sockexec_proto::{Options, Signal, WindowSize};

use super::{HEAD, drive, input, set, start};
use crate::common::drive::Cut;

#[test]
fn a_client_writes_what_the_protocol_says() {
    let options = Options {
        directory: Some(c"/tmp".into()),
        environment: vec![set(b"A", b"b"), EnvironmentChange::Unset(b"C".to_vec()), EnvironmentChange::Clear],
        timeout: Some(Duration::from_millis(1500)),
        stderr_to_stdout: true,
        pty: WindowSize::parse(b"80x24"),
        utf8: true,
        descriptors: true,
    };
    let mut out = Vec::new();
    encode_request(&options, &["echo", "hi"], &mut out);
    let expected = b"10:protocol=2,8:cwd=/tmp,7:env=A=b,10:unsetenv=C,8:clearenv,11:timeout=1.5,13:stderr=stdout,9:pty=80x24,4:utf8,3:fds,1:2,4:echo,2:hi,";
    assert_eq!(out.escape_ascii().to_string(), expected.escape_ascii().to_string());

    out.clear();
    encode_status(&mut out);
    assert_eq!(out, b"10:protocol=2,6:status,");
    out.clear();
    request::encode_ping(&mut out);
    assert_eq!(out, HEAD);
    assert_eq!(stdin_header(0).as_bytes(), b"5:stdin,0:");
    assert_eq!(stdin_header(u64::MAX).as_bytes(), b"5:stdin,18446744073709551615:");
    assert_eq!(END_OF_TAGGED_STDIN, b"5:stdin,0:,");
    out.clear();
    encode_signal(&Signal::Name(b"TERM".to_vec()), &mut out);
    encode_signal(&Signal::Number(15), &mut out);
    encode_window_size(WindowSize { columns: 132, rows: 50 }, &mut out);
    assert_eq!(out, b"6:signal,4:TERM,6:signal,2:15,7:winsize,6:132x50,");
}

#[test]
fn a_time_is_read_as_it_was_written() {
    let times =
        [Duration::new(0, 1), Duration::from_millis(10), Duration::new(59, 999_999_999), Duration::from_secs(60)];
    let texts = ["0.000000001", "0.01", "59.999999999", "60"];
    for (time, text) in times.into_iter().zip(texts) {
        let options = Options { timeout: Some(time), ..Options::default() };
        let mut out = Vec::new();
        encode_request(&options, &["a"], &mut out);
        let option = format!("timeout={text}");
        assert_eq!(out, input(&[option.as_bytes(), b"1", b"a"], b""));
        assert_eq!(drive(&out, &Cut::of(&[1])).seen, [start(options, &[b"a"])]);
    }
}

#[test]
fn a_time_too_long_for_the_grammar_is_not_sent() {
    let longest = Duration::new(999_999_999_999_999_999, 999_999_999);
    for (time, sent) in [(longest, Some(longest)), (longest + Duration::from_nanos(1), None), (Duration::MAX, None)] {
        let options = Options { timeout: Some(time), ..Options::default() };
        let mut out = Vec::new();
        encode_request(&options, &["a"], &mut out);
        assert_eq!(drive(&out, &Cut::of(&[1])).seen, [start(Options { timeout: sent, ..options }, &[b"a"])]);
    }
}
