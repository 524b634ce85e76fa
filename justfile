# Shows the recipes.
default:
    @just --list

# Two minutes: format, lints, unit tests, and the rules about the code itself.
check:
    cargo fmt --check
    cargo clippy --release --all-targets -j2 -- -D warnings
    cargo test --release --lib -j2
    cargo test --release --test it -j2 tidy::

# One part of the integration tests, such as `just test sandbox`.
test PART:
    cargo test --release --test it -j2 {{PART}}::

# Everything that continuous integration does.
ci:
    .ci/run

# The documentation of the library, in a browser.
docs:
    cargo doc --release --no-deps -j2 --open

# A benchmark, such as `just bench infer`.
bench NAME *ARGS:
    cargo run --release -j2 -- bench {{NAME}} {{ARGS}}
