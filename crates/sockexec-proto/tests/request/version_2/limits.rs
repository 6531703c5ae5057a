//! 4 MiB up to the last argument, and 4,096 options.

use sockexec_proto::error::BadRequestKind as Kind;
use sockexec_proto::{netstring, request};

use super::{HEAD, drive, input, place};
use crate::common::drive::Cut;
use crate::{Fault, fault};

#[test]
#[cfg_attr(miri, ignore = "takes minutes, and fewer bytes show the same")]
fn options_and_arguments_count_towards_4_mib() {
    // What "cwd=" and the path may take: all but the head of eight bytes, the comma, the number and the program.
    let len = (4 << 20) - HEAD.len() - 8 - 1 - b"1:1,1:a,".len();
    let path = vec![b'x'; len - 4];
    let option = [b"cwd=".as_slice(), &path].concat();
    let whole = input(&[&option, b"1", b"a"], b"");
    assert_eq!(whole.len(), 4_194_304);
    for sizes in [vec![whole.len()], vec![65_536, 0, 7]] {
        let outcome = drive(&whole, &Cut::of(&sizes));
        assert_eq!(outcome.verdict, Ok(place(&whole, false, Ok(()))), "in {sizes:?}");
    }
    // One byte more is refused from the length of the argument,
    let longer = input(&[&option, b"1"], b"2:");
    let kind = Kind::OptionsTooLong;
    let text = "options and arguments of more than 4194304 bytes in all at byte 4194302";
    let refused = drive(&longer, &Cut::of(&[longer.len()])).verdict.unwrap_err();
    assert_eq!(refused, Fault { kind, offset: 4_194_302, text: text.to_owned() });
    // and from the length of an option.
    let refused = drive(&[HEAD, b"4194290:"].concat(), &Cut::of(&[1])).verdict.unwrap_err();
    assert_eq!((refused.kind, refused.offset), (Kind::OptionsTooLong, 22));
    // A length of nine digits is refused before its value is known.
    let refused = drive(&[HEAD, b"100000000"].concat(), &Cut::of(&[1])).verdict.unwrap_err();
    assert_eq!(refused.text, "length of more than 8 digits at byte 22");
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes, and fewer options show the same")]
fn exactly_4096_options_are_accepted() {
    let mut bytes = HEAD.to_vec();
    for _ in 0..4096 {
        netstring::encode(b"clearenv", &mut bytes);
    }
    let outcome = drive(&[&bytes, b"1:1,1:a,".as_slice()].concat(), &Cut::of(&[4096]));
    assert_eq!(outcome.seen.len(), 1);
    let refused = drive(&[&bytes, b"8:clearenv,".as_slice()].concat(), &Cut::of(&[4096])).verdict.unwrap_err();
    assert_eq!(refused, fault(Kind::TooManyOptions, bytes.len() + 2));
    assert_eq!(refused.text, format!("more than 4096 options at byte {}", bytes.len() + 2));
    assert_eq!(request::MAX_OPTIONS, 4096);
}
