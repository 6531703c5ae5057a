//! A daemon on a temporary socket, and two programs run through it.
//!
//!     cargo run --release --package sockexec --features daemon --example quickstart
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::Path;
use std::thread;

use sockexec::{Command, Daemon};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("exec.sock");

    // In earnest the daemon is a process of its own: `sockexec /tmp/exec.sock`.
    let daemon = Daemon::builder().bind(&socket)?;
    let handle = daemon.handle();
    let thread = thread::spawn(move || daemon.run());

    let result = run_programs(&socket);

    handle.shut_down();
    thread.join().map_err(|_| "the daemon panicked")??;
    result
}

fn run_programs(socket: &Path) -> Result<(), Box<dyn Error>> {
    let output = Command::new(socket, "uname").arg("-a").output()?;
    print!("uname -a: {}", String::from_utf8_lossy(&output.stdout));
    println!("          ({})", output.status);

    let output = Command::new(socket, "cat").stdin_bytes("text that went through cat").output()?;
    println!("cat:      {}", String::from_utf8_lossy(&output.stdout));
    println!("          ({})", output.status);
    Ok(())
}
