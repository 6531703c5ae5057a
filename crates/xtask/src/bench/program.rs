//! The programs that are run.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::stdio;

use crate::{Result, context};

/// A static program that exits at once, so that its start costs as little as possible.
///
/// Without a C library: on a virtual machine the start of a static glibc program took three times as long as its exec
/// (perhaps its CPUID instructions, which trap there). That would hide the differences between servers.
const SMALL: &str = r#"
#![no_std]
#![no_main]

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(".globl _start", "_start:", "xor edi, edi", "mov eax, 231", "syscall");
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(".globl _start", "_start:", "mov x0, #0", "mov x8, #94", "svc #0");

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
"#;

/// A program that prints a line and waits until its standard input ends. Without arguments it exits at once: it
/// replaces [`SMALL`] on processors for which that has no code.
const WAITING: &str = r#"
use std::io::{Read, Write};

fn main() {
    if std::env::args_os().len() > 1 {
        let _ = std::io::stdout().write_all(b"running\n");
        let _ = std::io::stdin().read(&mut [0]);
    }
}
"#;

/// Options for both: static, and small.
const STATIC: &[&str] = &[
    "--edition=2024",
    "-O",
    "-Cpanic=abort",
    "-Cstrip=symbols",
    "-Ctarget-feature=+crt-static",
    "-Crelocation-model=static",
];

/// Options for a program without a C library.
const WITHOUT_LIBC: &[&str] = &["-Clink-arg=-nostartfiles", "-Clink-arg=-nostdlib"];

/// What the waiting program prints.
pub(crate) const RUNNING: &[u8] = b"running\n";

/// One of the two programs whose rate is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// [`SMALL`]
    Small,
    /// A dynamic program: the time is mostly exec's and the dynamic linker's.
    True,
}

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Programs {
    small: PathBuf,
    waiting: PathBuf,
    this: PathBuf,
}

impl Programs {
    /// Compiles programs into `directory`.
    pub(crate) fn prepare(directory: &Path) -> Result<Self> {
        let waiting = compile(directory, "waiting", WAITING, &[])?;
        let small = if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            compile(directory, "small", SMALL, WITHOUT_LIBC)?
        } else {
            waiting.clone()
        };
        Ok(Self { small, waiting, this: std::env::current_exe()? })
    }

    /// Arguments of a program whose rate is measured.
    pub(crate) fn argv(&self, program: Program) -> Result<Vec<String>> {
        Ok(vec![match program {
            Program::Small => text(&self.small)?,
            Program::True => "/bin/true".to_owned(),
        }])
    }

    /// Arguments of a program that prints [`RUNNING`] and waits until its standard input ends.
    pub(crate) fn waiting(&self) -> Result<Vec<String>> {
        Ok(vec![text(&self.waiting)?, "wait".to_owned()])
    }

    /// Arguments of a program that writes `bytes` bytes to its standard output, `chunk` at a time.
    pub(crate) fn producer(&self, bytes: u64, chunk: usize) -> Result<Vec<String>> {
        Ok(vec![text(&self.this)?, "produce".to_owned(), bytes.to_string(), chunk.to_string()])
    }

    /// Arguments of a program that reads its standard input to the end and prints how many bytes that was.
    pub(crate) fn consumer(&self) -> Result<Vec<String>> {
        Ok(vec![text(&self.this)?, "consume".to_owned()])
    }
}

fn compile(directory: &Path, name: &str, source: &str, options: &[&str]) -> Result<PathBuf> {
    let binary = directory.join(name);
    let file = directory.join(format!("{name}.rs"));
    fs::write(&file, source).map_err(context(file.display()))?;
    let mut rustc = Command::new("rustc");
    rustc.args(STATIC).args(options).arg("-o").args([&binary, &file]);
    let output = rustc.output().map_err(context("rustc"))?;
    if output.status.success() {
        return Ok(binary);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("rustc cannot build the {name} program; is the C library installed for static linking?\n{said}").into())
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().ok_or_else(|| format!("{}: not UTF-8", path.display()))?.to_owned())
}

/// The hidden command `xtask produce`.
pub(crate) fn produce(bytes: u64, chunk: usize) -> Result<()> {
    let mut line = vec![b'x'; chunk];
    if let Some(last) = line.last_mut() {
        *last = b'\n';
    }
    let mut left = bytes;
    while left > 0 {
        let take = line.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        // Not std's stdout, which buffers lines: each chunk must be one write.
        let written = rustix::io::write(stdio::stdout(), line.get(..take).unwrap_or_default())?;
        left -= written as u64;
    }
    Ok(())
}

/// The hidden command `xtask consume`.
pub(crate) fn consume() -> Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    let mut total = 0_u64;
    let mut input = std::io::stdin().lock();
    loop {
        match input.read(&mut buffer)? {
            0 => break,
            n => total += n as u64,
        }
    }
    println!("{total}");
    Ok(())
}
