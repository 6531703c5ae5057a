//! Chores of this workspace: `cargo xtask bench`, `cargo xtask soak`.
#![forbid(unsafe_code)]

/// `eprint!` without its panic where standard error is gone: that would abort a release build, and leave servers.
#[cfg(target_os = "linux")]
macro_rules! say {
    ($($argument:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!($($argument)*));
    }};
}

#[cfg(target_os = "linux")]
mod bench;
#[cfg(target_os = "linux")]
mod soak;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    bench::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("xtask: its chores read /proc and need Linux");
    std::process::ExitCode::FAILURE
}
