//! Output of the client.

use std::io::Cursor;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::process::Signal;

use super::{PythonClient, Running};
use crate::common::{Daemon, pattern, steps, wait_until_stuck};

/// The reader is slow, and signals interrupt the writes. What write(2) left over used to be lost.
#[test]
fn signals_lose_no_output() {
    let Some(client) = PythonClient::new() else { return };
    let input = pattern(5_000_000);
    for is_non_blocking in [false, true] {
        let daemon = Daemon::start("-t 0");
        let (reader, writer) = std::io::pipe().unwrap();
        if is_non_blocking {
            rustix::fs::fcntl_setfl(&writer, OFlags::WRONLY | OFlags::NONBLOCK).unwrap();
        }
        let mut command = client.command(daemon.socket(), &steps("ignore USR1 ; out ready cat"));
        let mut running = Running(command.stdout(writer).spawn().unwrap());
        drop(command);
        running.0.stdout = Some(OwnedFd::from(reader).into());
        running.wait_for("ready");
        let (_, feeder) = running.feed(Cursor::new(input.clone()));
        wait_until_stuck(|| running.unread());
        for descriptor in 0..3 {
            assert_eq!(running.is_non_blocking(descriptor), is_non_blocking && descriptor == 1, "{descriptor}");
        }
        let mut output = Vec::new();
        for n in 0_u32.. {
            // The first signal interrupts a write. The others come at any moment, while much is
            // left to write.
            if n.is_multiple_of(50) && output.len() < input.len() / 2 {
                running.signal(Signal::USR1);
            }
            let bytes = running.read(1000);
            if bytes.is_empty() {
                break;
            }
            output.extend(bytes);
        }
        assert_eq!(running.end(), (0, String::new()));
        assert!(output == input, "{} of {} bytes", output.len(), input.len());
        feeder.join().unwrap().unwrap();
    }
}
