#!/usr/bin/env bash
# Holds the dependency tree against deny.toml with cargo-deny, which is built into the cache the first
# time. Bans, licences and sources decide. Advisories decide where their database can be fetched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VERSION=0.20.2
root=${AGENTID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/agentid}/cargo-deny-$VERSION
deny=$root/bin/cargo-deny

if [ ! -x "$deny" ]; then
  echo "building cargo-deny $VERSION, once per machine: about 3 minutes on two cores"
  # Unoptimised: it is built far more often than it is waited for. From outside the checkout, so that
  # this project's toolchain file and target directory stay out of it.
  env -C / RUSTUP_TOOLCHAIN="$(rustup show active-toolchain 2>/dev/null | cut -d' ' -f1)" CARGO_TARGET_DIR="$root/build" \
    cargo install --locked --debug --config profile.dev.debug=0 --root "$root" "cargo-deny@$VERSION"
  rm -rf "$root/build"
fi

"$deny" --locked check --hide-inclusion-graph bans licenses sources
if timeout 60 "$deny" --locked fetch db >/dev/null 2>&1; then
  "$deny" --locked check --disable-fetch advisories
else
  echo "advisories: skipped, their database can't be fetched from here"
fi
