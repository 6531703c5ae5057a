//! The wire protocol of sockexec and nothing else: no input, no output, no clock.
//!
//! Everything on the wire is a [netstring]. A client sends a request (the number of arguments, the
//! arguments, then the program's standard input in chunks, ended by the empty netstring); the
//! daemon answers with pairs of a tag and a payload, the last of which says how the program
//! ended. A request of version 2 has options before the arguments and tagged input after them.
//! `docs/protocol.md` is the contract.
//!
//! | side | reads with | writes with |
//! | --- | --- | --- |
//! | daemon | [`RequestDecoder`] | [`reply::Header`], [`reply::encode_pair`], [`reply::encode_exit`] |
//! | client | [`ReplyDecoder`] | [`request::encode_exec`], [`request::chunk_header`], [`request::END_OF_STDIN`] |
//! | daemon, version 2 | [`RequestDecoder`] | [`reply::Header`] and the other functions of [`reply`] |
//! | client, version 2 | [`ReplyDecoder::of`] | [`request::encode_request`], [`request::stdin_header`], [`request::END_OF_TAGGED_STDIN`], [`request::encode_signal`], [`request::encode_window_size`], [`request::encode_status`], [`request::encode_ping`] |
//!
//! Feed a decoder whatever has arrived, cut anywhere. It returns how many bytes it consumed, and what
//! it found. It holds no payload that is to be streamed: for standard input and output it returns how
//! many bytes come next, and the caller moves them (a copy, a write, `splice(2)`). So memory does not
//! grow with a length that a peer announces.
//!
//! # What may grow
//!
//! Later daemons may say more, so [`ErrorCode`], [`Failure`], [`Usage`], [`Introduction`] and the
//! reasons in [`error`] are `#[non_exhaustive]`. [`Options`] and the events of the decoders are not, on
//! purpose: to overlook an option or an event is a mistake, and the compiler finds it. Another option
//! or event is a new major version of this crate.
//!
//! [netstring]: https://cr.yp.to/proto/netstrings.txt
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod error;
pub mod netstring;
mod number;
mod pair;
pub mod reply;
pub mod request;
mod signal;
mod text;

pub use error::{BadReply, BadRequest};
pub use reply::{ErrorCode, Exit, Failure, Introduction, ReplyDecoder, Signal, Stream, Usage};
pub use request::{Options, RequestDecoder, Version, WindowSize};
