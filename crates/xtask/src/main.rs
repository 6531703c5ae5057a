//! Chores of this workspace: `cargo xtask bench`.
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod bench;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    bench::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("xtask: the benchmark reads /proc and needs Linux");
    std::process::ExitCode::FAILURE
}
