//! 4 MiB up to the last argument, and 65,536 arguments.

use sockexec_proto::error::BadRequestKind;
use sockexec_proto::netstring;
use sockexec_proto::request::encode_exec;

use super::{check_refused, early_end, exec, place};
use crate::common::drive::Cut;
use crate::{Fault, drive, stdin};

/// `1:1,LEN:` of a request that is `total` bytes long up to the comma of its argument.
fn head_of_one_argument(total: usize) -> Vec<u8> {
    // "1:1,", seven digits and a colon, the comma.
    format!("1:1,{}:", total - 4 - 8 - 1).into_bytes()
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes, and fewer bytes show the same")]
fn a_header_of_exactly_4_mib_is_accepted() {
    let mut input = head_of_one_argument(4 << 20);
    let argument = vec![b'x'; (4 << 20) - 1 - input.len()];
    input.extend_from_slice(&argument);
    input.push(b',');
    assert_eq!(input.len(), 4_194_304);

    for sizes in [vec![input.len()], vec![1], vec![65_536, 0, 7]] {
        let outcome = drive(&input, &Cut::of(&sizes));
        // Not assert_eq, which would print 4 MiB.
        assert!(outcome.seen == [exec(&[&argument])], "in {sizes:?}");
        assert_eq!(outcome.verdict, Ok(place(4_194_304, false, Ok(()))), "in {sizes:?}");
    }
}

#[test]
fn a_header_of_one_byte_more_is_refused_from_the_length_alone() {
    let input = head_of_one_argument((4 << 20) + 1);
    let text = "arguments of more than 4194304 bytes in all at byte 12";
    check_refused(&input, BadRequestKind::HeaderTooLong, 12, text);
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes, and fewer bytes show the same")]
fn the_framing_of_all_arguments_counts_towards_4_mib() {
    // After the first argument there is room for one empty argument and no more.
    let first = vec![b'x'; (4 << 20) - 3 - 4 - 8 - 1];
    let mut input = format!("1:3,{}:", first.len()).into_bytes();
    input.extend_from_slice(&first);
    input.extend_from_slice(b",0:,");
    assert_eq!(input.len(), 4_194_304);
    let verdict = drive(&input, &Cut::of(&[4096])).verdict;
    assert_eq!(verdict, Ok(place(4_194_304, false, Err(early_end(4 << 20)))));

    input.extend_from_slice(b"0:");
    let fault = Fault {
        kind: BadRequestKind::HeaderTooLong,
        offset: 4_194_306,
        text: "arguments of more than 4194304 bytes in all at byte 4194306".to_owned(),
    };
    for sizes in [vec![input.len()], vec![1], vec![4_194_304, 2]] {
        assert_eq!(drive(&input, &Cut::of(&sizes)).verdict, Err(fault.clone()), "in {sizes:?}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes, and fewer bytes show the same")]
fn standard_input_does_not_count_towards_4_mib() {
    let bytes = vec![b'x'; 4 << 20];
    let mut input = b"1:1,1:a,".to_vec();
    netstring::encode(&bytes, &mut input);
    let outcome = drive(&input, &Cut::of(&[100_000]));
    assert!(outcome.seen == [exec(&[b"a"]), stdin(&bytes)]);
    assert_eq!(outcome.verdict, Ok(place(input.len(), false, Ok(()))));
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes, and fewer arguments show the same")]
fn exactly_65536_arguments_are_accepted() {
    let argv: Vec<&[u8]> = vec![b""; 65_536];
    let mut input = Vec::new();
    encode_exec(&argv, &mut input);
    for sizes in [vec![input.len()], vec![1], vec![1000]] {
        let outcome = drive(&input, &Cut::of(&sizes));
        assert!(outcome.seen == [exec(&argv)], "in {sizes:?}");
        assert_eq!(outcome.verdict, Ok(place(input.len(), false, Ok(()))), "in {sizes:?}");
    }
}
