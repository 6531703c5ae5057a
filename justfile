# Everyday commands; `just` lists them.
default:
    @just --list

# All the tests; `.ci/run` also runs them in other ways.
test:
    cargo test --workspace --all-features

# The end-to-end suite N times, beside two busy loops: finds tests that fail one time in a hundred.
repeat N="20":
    cargo test --workspace --all-features --no-run
    sh -c 'trap "kill 0" EXIT; (while :; do :; done) & (while :; do :; done) & for i in $(seq {{ N }}); do echo "run $i"; cargo test --quiet --test e2e || exit 1; done'

# What CI checks besides the tests.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features
    cargo deny check bans licenses sources

# The daemon's tests on other kernels: `just machines bookworm -- ends::`, see docs/testing.md.
machines *ARGUMENTS:
    .ci/machines/run {{ ARGUMENTS }}

# The benchmark: the daemon beside a bare loop, bare pipes and its peers; `just bench --quick` takes a minute.
bench *ARGUMENTS:
    cargo xtask bench {{ ARGUMENTS }}

# A mixed load; every byte is checked, and what the daemon uses must not grow: `just soak --minutes 15`.
soak *ARGUMENTS:
    cargo xtask soak {{ ARGUMENTS }}

# Makes the daemon's system calls fail. With N every call, at its first N occurrences; `all` also writes target/faults.md.
faults N="":
    rm -rf target/tmp/faults
    {{ if N == "" { "" } else { "SOCKEXEC_FAULTS=" + N } }} cargo test --test e2e -- --test-threads 6 faults::
    if [ "{{ N }}" = all ]; then (sed -n '/^| scenario |/,/^| ---/p' docs/testing.md; cat target/tmp/faults/*.row target/tmp/faults/*.md) >target/faults.md; fi

# Draws the picture of docs/architecture.md from the source (graphviz).
picture:
    cargo run --quiet --package xtask -- rooms >docs/architecture.dot
    dot -Tsvg docs/architecture.dot | sed '/^<!-- Generated/,/-->/d' >docs/architecture.svg

# Draws the pictures of the README and of docs/watching.md: a terminal session with a real daemon, and sockexec-top.
demo:
    cargo xtask demo

# Lines of the daemon and the protocol that the tests reach. Needs cargo-llvm-cov and the component llvm-tools.
coverage *ARGUMENTS:
    mkdir -p target/llvm-cov-target && chmod 1777 target/llvm-cov-target
    cargo llvm-cov --all-features --package sockexec --package sockexec-cli --package sockexec-proto --failure-mode all {{ ARGUMENTS }}
