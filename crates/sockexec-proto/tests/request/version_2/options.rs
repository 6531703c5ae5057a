//! The options.

use std::ffi::CStr;
use std::time::Duration;

use sockexec_proto::error::BadRequestKind as Kind;
use sockexec_proto::request::{self, EnvironmentChange, Event, encode_request};
use sockexec_proto::{Options, WindowSize, netstring};

use super::{HEAD, check_read, check_refused, drive, input, set, start};
use crate::common::drive::Cut;
use crate::{Fault, Seen};

#[test]
fn each_option_is_read() {
    let default = Options::default;
    let cases: [(&[u8], Options); 17] = [
        (b"cwd=/tmp", Options { directory: Some(c"/tmp".into()), ..default() }),
        (b"cwd=a=b \xff", Options { directory: Some(c"a=b \xff".into()), ..default() }),
        (b"env=A=b", Options { environment: vec![set(b"A", b"b")], ..default() }),
        (b"env=A=", Options { environment: vec![set(b"A", b"")], ..default() }),
        (b"env=A=b=c", Options { environment: vec![set(b"A", b"b=c")], ..default() }),
        (b"env=\xff=\n", Options { environment: vec![set(b"\xff", b"\n")], ..default() }),
        (b"unsetenv=A", Options { environment: vec![EnvironmentChange::Unset(b"A".to_vec())], ..default() }),
        (b"clearenv", Options { environment: vec![EnvironmentChange::Clear], ..default() }),
        (b"timeout=3", Options { timeout: Some(Duration::from_secs(3)), ..default() }),
        (b"timeout=0.5", Options { timeout: Some(Duration::from_millis(500)), ..default() }),
        (b"timeout=007.0000000019", Options { timeout: Some(Duration::new(7, 1)), ..default() }),
        (
            b"timeout=999999999999999999",
            Options { timeout: Some(Duration::from_secs(10_u64.pow(18) - 1)), ..default() },
        ),
        (b"stderr=stdout", Options { stderr_to_stdout: true, ..default() }),
        (b"pty=80x24", Options { pty: Some(WindowSize { columns: 80, rows: 24 }), ..default() }),
        (b"pty=0x0", Options { pty: Some(WindowSize { columns: 0, rows: 0 }), ..default() }),
        (b"pty=65535x1", Options { pty: Some(WindowSize { columns: 65535, rows: 1 }), ..default() }),
        (b"fds", Options { descriptors: true, ..default() }),
    ];
    for (option, options) in cases {
        check_read(&input(&[option, b"1", b"cat"], b""), &[start(options, &[b"cat"])]);
    }
    let options = || Options { pty: WindowSize::parse(b"1x2"), utf8: true, ..default() };
    for both in [[&b"pty=1x2"[..], b"utf8"], [b"utf8", b"pty=1x2"]] {
        check_read(&input(&[both[0], both[1], b"1", b"cat"], b""), &[start(options(), &[b"cat"])]);
    }
}

#[test]
fn changes_to_the_environment_keep_their_order() {
    let netstrings: [&[u8]; 8] =
        [b"env=A=1", b"clearenv", b"unsetenv=A", b"cwd=/", b"env=A=2", b"env=B=", b"1", b"cat"];
    let environment = vec![
        set(b"A", b"1"),
        EnvironmentChange::Clear,
        EnvironmentChange::Unset(b"A".to_vec()),
        set(b"A", b"2"),
        set(b"B", b""),
    ];
    let options = Options { directory: Some(c"/".into()), environment, ..Options::default() };
    check_read(&input(&netstrings, b""), &[start(options, &[b"cat"])]);
}

#[test]
fn an_invalid_option_is_refused_and_named() {
    let long = [b'x'; 100];
    let cases: [(&[u8], usize, Kind, &str); 32] = [
        (b"x", 0, Kind::UnknownOption(b"x".to_vec()), "unknown option \"x\""),
        (b"cwd2=/", 0, Kind::UnknownOption(b"cwd2".to_vec()), "unknown option \"cwd2\""),
        (b"CWD=/", 0, Kind::UnknownOption(b"CWD".to_vec()), "unknown option \"CWD\""),
        (b"=", 0, Kind::UnknownOption(b"".to_vec()), "unknown option \"\""),
        (b"\n\0", 0, Kind::UnknownOption(b"\n\0".to_vec()), r#"unknown option "\n\x00""#),
        (
            &long,
            0,
            Kind::UnknownOption(vec![b'x'; 64]),
            "unknown option \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"",
        ),
        (b"cwd", 0, Kind::OptionNeedsValue("cwd"), "option cwd needs a value"),
        (b"env", 0, Kind::OptionNeedsValue("env"), "option env needs a value"),
        (b"timeout", 0, Kind::OptionNeedsValue("timeout"), "option timeout needs a value"),
        (b"stderr", 0, Kind::OptionNeedsValue("stderr"), "option stderr needs a value"),
        (b"pty", 0, Kind::OptionNeedsValue("pty"), "option pty needs a value"),
        (b"clearenv=1", 8, Kind::OptionTakesNoValue("clearenv"), "option clearenv takes no value"),
        (b"utf8=1", 4, Kind::OptionTakesNoValue("utf8"), "option utf8 takes no value"),
        (b"fds=3", 3, Kind::OptionTakesNoValue("fds"), "option fds takes no value"),
        (b"status=", 6, Kind::OptionTakesNoValue("status"), "option status takes no value"),
        (b"cwd=", 4, Kind::OptionValue("cwd", vec![]), "invalid value \"\" of option cwd"),
        (b"env=A", 4, Kind::OptionValue("env", b"A".to_vec()), "invalid value \"A\" of option env"),
        (b"env==x", 4, Kind::OptionValue("env", b"=x".to_vec()), "invalid value \"=x\" of option env"),
        (b"unsetenv=", 9, Kind::OptionValue("unsetenv", vec![]), "invalid value \"\" of option unsetenv"),
        (
            b"unsetenv=A=b",
            9,
            Kind::OptionValue("unsetenv", b"A=b".to_vec()),
            "invalid value \"A=b\" of option unsetenv",
        ),
        (b"timeout=", 8, Kind::OptionValue("timeout", vec![]), "invalid value \"\" of option timeout"),
        (b"timeout=0", 8, Kind::OptionValue("timeout", b"0".to_vec()), "invalid value \"0\" of option timeout"),
        (b"timeout=-1", 8, Kind::OptionValue("timeout", b"-1".to_vec()), "invalid value \"-1\" of option timeout"),
        (b"timeout=1.", 8, Kind::OptionValue("timeout", b"1.".to_vec()), "invalid value \"1.\" of option timeout"),
        (b"timeout=.5", 8, Kind::OptionValue("timeout", b".5".to_vec()), "invalid value \".5\" of option timeout"),
        (b"timeout=1e3", 8, Kind::OptionValue("timeout", b"1e3".to_vec()), "invalid value \"1e3\" of option timeout"),
        (
            b"timeout=1000000000000000000",
            8,
            Kind::OptionValue("timeout", b"1000000000000000000".to_vec()),
            "invalid value \"1000000000000000000\" of option timeout",
        ),
        (b"stderr=null", 7, Kind::OptionValue("stderr", b"null".to_vec()), "invalid value \"null\" of option stderr"),
        (b"pty=80", 4, Kind::OptionValue("pty", b"80".to_vec()), "invalid value \"80\" of option pty"),
        (b"pty=x24", 4, Kind::OptionValue("pty", b"x24".to_vec()), "invalid value \"x24\" of option pty"),
        (
            b"pty=80x65536",
            4,
            Kind::OptionValue("pty", b"80x65536".to_vec()),
            "invalid value \"80x65536\" of option pty",
        ),
        (b"env=A=\0", 6, Kind::NulByteInOption("env"), "option env holds a NUL byte"),
    ];
    for (option, at, kind, text) in cases {
        let before = netstring::Header::new(option.len() as u64).as_bytes().len();
        let input = input(&[option], b"");
        check_refused(&input, &[], &kind, HEAD.len() + before + at, text);
    }
}

#[test]
fn options_that_exclude_each_other_are_refused() {
    let cases: [(&[u8], &[u8], Kind, &str); 12] = [
        (b"cwd=/", b"cwd=/", Kind::OptionTwice("cwd"), "option cwd given twice"),
        (b"timeout=1", b"timeout=1", Kind::OptionTwice("timeout"), "option timeout given twice"),
        (b"stderr=stdout", b"stderr=stdout", Kind::OptionTwice("stderr"), "option stderr given twice"),
        (b"pty=1x1", b"pty=2x2", Kind::OptionTwice("pty"), "option pty given twice"),
        (b"utf8", b"utf8", Kind::OptionTwice("utf8"), "option utf8 given twice"),
        (b"fds", b"fds", Kind::OptionTwice("fds"), "option fds given twice"),
        (b"fds", b"pty=1x1", Kind::OptionsExclude("pty", "fds"), "option pty cannot be combined with option fds"),
        (b"pty=1x1", b"fds", Kind::OptionsExclude("fds", "pty"), "option fds cannot be combined with option pty"),
        (
            b"fds",
            b"stderr=stdout",
            Kind::OptionsExclude("stderr", "fds"),
            "option stderr cannot be combined with option fds",
        ),
        (
            b"stderr=stdout",
            b"fds",
            Kind::OptionsExclude("fds", "stderr"),
            "option fds cannot be combined with option stderr",
        ),
        (
            b"cwd=/",
            b"status",
            Kind::OptionsExclude("status", "cwd"),
            "option status cannot be combined with option cwd",
        ),
        (
            b"clearenv",
            b"status",
            Kind::OptionsExclude("status", "clearenv"),
            "option status cannot be combined with option clearenv",
        ),
    ];
    for (first, second, kind, text) in cases {
        let before = input(&[first], b"").len();
        let head = netstring::Header::new(second.len() as u64).as_bytes().len();
        check_refused(&input(&[first, second], b""), &[], &kind, before + head, text);
    }
    // The option that it needs may still come, so this is found after the last option.
    let at = input(&[b"cwd=/"], b"").len() + 2;
    let without = input(&[b"cwd=/", b"utf8", b"stderr=stdout", b"1"], b"");
    check_refused(&without, &[], &Kind::OptionNeeds("utf8", "pty"), at, "option utf8 needs option pty");
    // A terminal has one stream of output anyway.
    let options = Options { pty: WindowSize::parse(b"1x2"), stderr_to_stdout: true, ..Options::default() };
    check_read(&input(&[b"pty=1x2", b"stderr=stdout", b"1", b"cat"], b""), &[start(options, &[b"cat"])]);
}

/// Each row of the table is true: the decoder reads its example, and the encoder writes the same.
#[test]
fn every_option_is_read_and_written_as_its_example() {
    for option in request::OPTIONS {
        assert_eq!(option.example.split('=').next(), Some(option.name));
        assert_eq!(option.example.contains('='), option.takes_value, "{}", option.name);
        if option.name == request::STATUS {
            continue;
        }
        let needed = option.needs.and_then(|name| request::OPTIONS.iter().find(|option| option.name == name));
        let mut words: Vec<&[u8]> = needed.map(|option| option.example.as_bytes()).into_iter().collect();
        words.extend([option.example.as_bytes(), b"1", b"cat"]);
        let input = input(&words, b"");
        let seen = drive(&input, &Cut::of(&[1])).seen;
        let [Seen::Event(Event::Start(request))] = seen.as_slice() else { panic!("{seen:?}") };
        let argv: Vec<&[u8]> = request.argv.iter().map(CStr::to_bytes).collect();
        assert_eq!(needed.map(|option| option.name), option.needs);
        assert_ne!(request.options, Options::default(), "{} changes nothing", option.name);
        let mut written = Vec::new();
        encode_request(&request.options, &argv, &mut written);
        assert_eq!(written.escape_ascii().to_string(), input.escape_ascii().to_string());
    }
}

/// The order of two options that exclude each other does not matter.
#[test]
fn options_exclude_each_other_both_ways() {
    let mut pairs = 0;
    let refused = |one: &str, other: &str| {
        let outcome = drive(&input(&[one.as_bytes(), other.as_bytes()], b""), &Cut::of(&[1]));
        matches!(outcome.verdict, Err(Fault { kind: Kind::OptionsExclude(..), .. }))
    };
    let others = || request::OPTIONS.iter().filter(|option| option.name != request::STATUS);
    for one in others() {
        for other in others().filter(|other| other.name != one.name) {
            assert_eq!(refused(one.example, other.example), refused(other.example, one.example));
            pairs += usize::from(refused(one.example, other.example));
        }
        assert!(refused(one.example, request::STATUS));
    }
    assert_eq!(pairs, 4);
}
