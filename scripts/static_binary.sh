#!/usr/bin/env bash
# Builds `rune` as one static binary, with its checksum, and tries it in a bare Debian tree.
#
#   scripts/static_binary.sh OUT             builds OUT/rune and OUT/rune.sha256
#   scripts/static_binary.sh OUT --smoke     also solves a task in a tree that debootstrap makes
#                                            (as root; Python is all that is installed there)
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "$1")
target=x86_64-unknown-linux-gnu
mkdir -p "$out"

RUSTFLAGS="-C target-feature=+crt-static" cargo build --profile dist --target "$target" -j2
cp "${CARGO_TARGET_DIR:-target}/$target/dist/rune" "$out/rune"
# The profile's `strip` leaves the debug information of a static executable in place.
strip "$out/rune"
(cd "$out" && sha256sum rune >rune.sha256)
if ! file "$out/rune" | grep -q 'static'; then
  echo "$out/rune is not static" >&2
  exit 1
fi
ls -l "$out/rune"

if [ "${2:-}" = --smoke ]; then
  tree=$(mktemp -d)
  chmod 755 "$tree" # the root of the programs that run there as another user
  trap 'umount "$tree/proc" || true; rm -rf --one-file-system "$tree"' EXIT
  debootstrap --variant=minbase --include=python3,ca-certificates bookworm "$tree" >/dev/null
  cp "$out/rune" "$tree/usr/local/bin/"
  mkdir -p "$tree/root/.rune/models" "$tree/work"
  chmod 700 "$tree/root/.rune"
  cp tests/fixtures/tasks/test_primes.py "$tree/work/"
  # The default model, where this machine has it; else it is downloaded there.
  cp -L "${RUNE_HOME:-$HOME/.rune}"/models/qwen2.5-coder-0.5b-instruct* "$tree/root/.rune/models/" || true
  mount -t proc proc "$tree/proc"
  inside() { chroot "$tree" /usr/bin/env -i HOME=/root PATH=/usr/local/bin:/usr/bin:/bin "$@"; }
  time inside rune --version
  time inside rune doctor || true
  time inside rune run "Write primes.py with is_prime(n) and primes_below(n)" \
    --tests /work/test_primes.py --out /work/out
fi
