#!/usr/bin/env bash
# Builds the Debian package, and prints its path: packaging/build-deb.sh [OPTION OF cargo deb]...
# PROGRAM=PATH packs that program instead of building one for release. It takes cargo-deb:
#   cargo install cargo-deb --locked --no-default-features
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${PROGRAM:-}" ]; then
    cargo build --locked --release --bin reactor
    PROGRAM=target/release/reactor
fi
# What the program itself writes, and the program where cargo-deb looks for it. Cargo.toml has the list.
staging=target/packaging
rm -rf "$staging"
mkdir -p "$staging"/{release,units,bash,zsh,fish}
cp "$PROGRAM" "$staging/release/reactor"
cp packaging/reactor.service "$staging/units/"
"$PROGRAM" man "$staging/man"
"$PROGRAM" completions bash >"$staging/bash/reactor"
"$PROGRAM" completions zsh >"$staging/zsh/_reactor"
"$PROGRAM" completions fish >"$staging/fish/reactor.fish"
CARGO_TARGET_DIR=$staging cargo deb --no-build --locked --compress-system "$@"
