//! The exit pair.

use sockexec_proto::error::BadReplyKind;
use sockexec_proto::reply::{EXITCODE, TERMSIG};
use sockexec_proto::{Exit, Signal};

use super::{check_read, check_refused};
use crate::{code, pair};

#[test]
fn every_exit_status_is_read_and_shown() {
    let cases = [
        ("exitcode", "0", Exit::Code(0), "exit code 0"),
        ("exitcode", "9", Exit::Code(9), "exit code 9"),
        ("exitcode", "255", Exit::Code(255), "exit code 255"),
        ("exitcode", "007", Exit::Code(7), "exit code 7"),
        ("termsig", "1", Exit::Signal(Signal::Number(1)), "signal 1"),
        ("termsig", "64", Exit::Signal(Signal::Number(64)), "signal 64"),
        ("termsig", "015", Exit::Signal(Signal::Number(15)), "signal 15"),
        ("termsig", "2147483647", Exit::Signal(Signal::Number(i32::MAX)), "signal 2147483647"),
        ("termsig", "TERM", Exit::Signal(Signal::Name(b"TERM".to_vec())), "signal TERM"),
        ("termsig", "USR1", Exit::Signal(Signal::Name(b"USR1".to_vec())), "signal USR1"),
        ("termsig", "RTMIN+1", Exit::Signal(Signal::Name(b"RTMIN+1".to_vec())), "signal RTMIN+1"),
        ("termsig", "RTMAX-14", Exit::Signal(Signal::Name(b"RTMAX-14".to_vec())), "signal RTMAX-14"),
        ("termsig", "???", Exit::Signal(Signal::Name(b"???".to_vec())), "signal ???"),
    ];
    for (tag, status, exit, text) in cases {
        assert_eq!(exit.to_string(), text);
        check_read(&pair(tag, status.as_bytes()), &[super::exit(exit)]);
    }
    for expected in (0..=255).step_by(if cfg!(miri) { 64 } else { 1 }) {
        check_read(&pair(EXITCODE, expected.to_string().as_bytes()), &[code(expected)]);
    }
}

#[test]
fn an_exitcode_that_is_not_a_number_up_to_255_is_refused_at_its_first_byte() {
    let cases: [(&[u8], &str); 11] = [
        (b"", "bad exitcode \"\" at byte 13"),
        (b"256", "bad exitcode \"256\" at byte 13"),
        (b"-1", "bad exitcode \"-1\" at byte 13"),
        (b"+1", "bad exitcode \"+1\" at byte 13"),
        (b" 1", "bad exitcode \" 1\" at byte 13"),
        (b"1\n", "bad exitcode \"1\\n\" at byte 13"),
        (b"0x1", "bad exitcode \"0x1\" at byte 13"),
        (b"TERM", "bad exitcode \"TERM\" at byte 13"),
        (b"\"\xff\0", r#"bad exitcode "\"\xff\x00" at byte 13"#),
        (b"65536", "bad exitcode \"65536\" at byte 13"),
        // 2^32 and 2^64, which must not wrap to 0.
        (b"4294967296", "bad exitcode \"4294967296\" at byte 14"),
    ];
    for (status, text) in cases {
        let offset = if status.len() < 10 { 13 } else { 14 };
        check_refused(&pair(EXITCODE, status), BadReplyKind::ExitCode(status.to_vec()), offset, text);
    }
    let wide = b"18446744073709551616".to_vec();
    let text = "bad exitcode \"18446744073709551616\" at byte 27";
    check_refused(
        &[b"6:stdout,1:x,".as_slice(), &pair(EXITCODE, &wide)].concat(),
        BadReplyKind::ExitCode(wide),
        27,
        text,
    );
}

#[test]
fn a_termsig_that_is_neither_number_nor_name_is_refused_at_its_first_byte() {
    let cases: [(&[u8], &str); 8] = [
        (b"", "bad termsig \"\" at byte 12"),
        (b"0", "bad termsig \"0\" at byte 12"),
        (b"000", "bad termsig \"000\" at byte 12"),
        (b" 15", "bad termsig \" 15\" at byte 12"),
        (b"TERM\n", "bad termsig \"TERM\\n\" at byte 12"),
        (b"SIG TERM", "bad termsig \"SIG TERM\" at byte 12"),
        (b"TERM\0", "bad termsig \"TERM\\x00\" at byte 12"),
        (b"\xffTERM", "bad termsig \"\\xffTERM\" at byte 12"),
    ];
    for (status, text) in cases {
        check_refused(&pair(TERMSIG, status), BadReplyKind::TermSig(status.to_vec()), 12, text);
    }
}

/// A number that is out of range was once read as a name.
#[test]
fn a_termsig_that_begins_like_a_number_is_not_taken_for_a_name() {
    for status in ["2147483648", "4294967297", "18446744073709551617", "-15", "+15", "-", "+", "15TERM", "9-"] {
        let input = pair(TERMSIG, status.as_bytes());
        let offset = if status.len() < 10 { 12 } else { 13 };
        let text = format!("bad termsig \"{status}\" at byte {offset}");
        check_refused(&input, BadReplyKind::TermSig(status.into()), offset, &text);
    }
}
