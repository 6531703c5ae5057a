# The commands of a working day; `just` lists them.
default:
    @just --list

# All the tests, as .ci/run runs them.
test:
    cargo test --workspace --all-features

# The end-to-end suite N times over, beside two busy loops: what fails one time in a hundred shows here.
repeat N="20":
    cargo test --workspace --all-features --no-run
    sh -c 'trap "kill 0" EXIT; (while :; do :; done) & (while :; do :; done) & for i in $(seq {{ N }}); do echo "run $i"; cargo test --quiet --all-features --test e2e || exit 1; done'

# What CI checks beside the tests.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features
    cargo deny check bans licenses sources

# The benchmark: the daemon beside a bare loop, bare pipes and its peers; `just bench --quick` takes a minute.
bench *ARGUMENTS:
    cargo xtask bench {{ ARGUMENTS }}

# A mixed load for so many minutes, every byte checked; what the daemon uses must stay flat: `just soak --minutes 15`.
soak *ARGUMENTS:
    cargo xtask soak {{ ARGUMENTS }}
