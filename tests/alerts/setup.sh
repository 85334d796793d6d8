#!/usr/bin/env bash
# Finds or makes promtool, which checks and tests alert rules, and prints its path. What is made lies outside the
# checkout, and may be deleted any time.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tests/alerts/setup.sh

Prints the path of promtool: the one that $PROMTOOL names, else the one in $PATH, else
${AGENTID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/agentid}/promtool-<version>/promtool, which it gets once: out of Debian's or
Ubuntu's package prometheus, without installing it, where apt-get can have it; else by building it.

Needs flock and, the first time, the network: some seconds with apt-get and dpkg-deb; without them go (1.26 or later), and
minutes for Prometheus' Go modules (Go's usual settings hold).
TEXT
}

case "${1-}" in
  '') ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

say() { printf 'promtool: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
need() { command -v "$1" >/dev/null || die "$1 is not installed${2:+: $2}"; }

# Prometheus 3.15.1, as a Go module.
version=v0.315.1
sum='h1:ZXaNKyUO5szJhhw7gKiP6b2jpx1QkS0S3CI1R1bPqIA='

if [ -n "${PROMTOOL-}" ]; then
  [ -x "$PROMTOOL" ] || die "PROMTOOL names $PROMTOOL, which can't be run"
  printf '%s\n' "$PROMTOOL"
  exit
fi
if found=$(command -v promtool); then
  printf '%s\n' "$found"
  exit
fi

cache=${AGENTID_CACHE:-${XDG_CACHE_HOME:-${HOME:?neither AGENTID_CACHE nor HOME is set}/.cache}/agentid}
dir=$cache/promtool-$version
if [ -x "$dir/promtool" ]; then
  printf '%s\n' "$dir/promtool"
  exit
fi

need flock
mkdir -p "$dir" || die "cannot make $dir; name another place by AGENTID_CACHE"
log=$dir/log

# Out of the distribution's package; fails where it can't be had.
from_package() {
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  say "taking promtool out of the package prometheus, in $dir"
  (cd "$dir" && rm -f prometheus_*.deb && timeout 120 apt-get download prometheus &&
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xO ./usr/bin/promtool >promtool.new &&
    chmod +x promtool.new && ./promtool.new --version && rm prometheus_*.deb) >"$log" 2>&1
}

build() {
  need go 'version 1.26 or later'
  say "making promtool $version (go build, some minutes) in $dir"
  # Not `go install`: the module replaces others, which holds only where it is the main one. Its go.sum is part of it.
  (cd "$dir" && GOWORK=off go mod download -json "github.com/prometheus/prometheus@$version") >"$dir/module.json" 2>"$log" ||
    { cat "$log" >&2; die "the module can't be had; is the module proxy reachable?"; }
  field() { sed -n "s/^[[:space:]]*\"$1\": \"\(.*\)\",\{0,1\}$/\1/p" "$dir/module.json"; }
  [ "$(field Sum)" = "$sum" ] || die "the module is not the one that is meant: $(field Sum), not $sum"
  # Without the service discoveries, of which rules know nothing.
  (cd "$(field Dir)" && GOWORK=off CGO_ENABLED=0 go build -mod=readonly -trimpath -tags remove_all_sd,netgo \
    -o "$dir/promtool.new" ./cmd/promtool) >"$log" 2>&1 ||
    { cat "$log" >&2; die "go build failed; is the module proxy reachable, and Go 1.26 or later?"; }
}

# Two at once would make the same.
exec 9>"$dir/.lock"
flock -n 9 || { say "waiting for another setup"; flock 9; }
if ! [ -x "$dir/promtool" ]; then
  from_package || build
  # Last, since its being there says that it is whole.
  mv "$dir/promtool.new" "$dir/promtool"
fi
printf '%s\n' "$dir/promtool"
