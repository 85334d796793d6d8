#!/usr/bin/env bash
# Makes the clients of tests/interop and prints where they are: packages of npm and of pip, and a Go program. What is
# made lies outside the checkout, is found again by the hash of its sources, and may be deleted any time.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tests/interop/setup.sh

Makes, once, ${AGENTID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/agentid}/interop/{node,python,go}-<hash> and prints
AGENTID_INTEROP_NODE=..., AGENTID_INTEROP_PYTHON=... and AGENTID_INTEROP_GO=...: the directory with the programs for
node and their packages, the Python with its packages, and the Go program.

Needs python3 (3.10 or later, with venv), go (1.25 or later), flock and sha256sum, and the first time the network for
their packages (npm's, pip's and Go's usual settings hold). Without node (18 or later) and npm the first line is left
out. The first time takes about a minute.
TEXT
}

case "${1-}" in
  '') ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

say() { printf 'interop: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
need() { command -v "$1" >/dev/null || die "$1 is not installed${2:+: $2}"; }

need python3 'version 3.10 or later'
need go 'version 1.25 or later'
need flock
need sha256sum

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${AGENTID_CACHE:-${XDG_CACHE_HOME:-${HOME:?neither AGENTID_CACHE nor HOME is set}/.cache}/agentid}/interop
mkdir -p "$cache" || die "cannot make $cache; name another place by AGENTID_CACHE"

# Of the sources and of what they are made with: another Python or Go makes another client.
hash_of() { { cat "${@:2}"; printf '%s' "$1"; } | sha256sum | cut -c1-12; }

# Each is made beside its place and moved there last, since its being there says that all is made.
make_node() {
  local dir=$1 log=$1.log
  say "making the node clients (npm ci, some seconds) in $dir"
  rm -rf "$dir" "$dir.new"
  mkdir "$dir.new"
  cp "$here"/node/*.json "$here"/node/*.mjs "$dir.new"
  (cd "$dir.new" && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier) >"$log" 2>&1 ||
    { cat "$log" >&2; die "npm ci failed; is the package registry reachable?"; }
  mv "$dir.new" "$dir"
}

make_python() {
  local dir=$1 log=$1.log
  say "making the Python clients (pip install, about 40 s) in $dir"
  rm -rf "$dir"
  python3 -m venv "$dir" >"$log" 2>&1 ||
    { cat "$log" >&2; die "python3 -m venv failed (Debian and Ubuntu: install python3-venv)"; }
  "$dir/bin/python" -m pip install --quiet --disable-pip-version-check \
    --requirement "$here/python/requirements.txt" >"$log" 2>&1 ||
    { cat "$log" >&2; die "pip install failed; is the package index reachable?"; }
  touch "$dir/made"
}

make_go() {
  local dir=$1 log=$1.log
  say "making the Go client (go build of go-oidc, up to a minute) in $dir"
  rm -rf "$dir"
  mkdir -p "$dir"
  (cd "$here/go" && GOWORK=off CGO_ENABLED=0 go build -mod=readonly -trimpath -o "$dir/ask.new" .) >"$log" 2>&1 ||
    { cat "$log" >&2; die "go build failed; is the module proxy reachable, and Go 1.25 or later?"; }
  mv "$dir/ask.new" "$dir/ask"
}

python=$cache/python-$(hash_of "$(python3 -c 'import sys; print(sys.version, sys.prefix)')" \
  "$here/python/requirements.txt")
go=$cache/go-$(hash_of "$(go env GOVERSION GOOS GOARCH)" "$here/go/go.mod" "$here/go/go.sum" "$here/go/main.go")
node=
if command -v node >/dev/null && command -v npm >/dev/null; then
  node=$cache/node-$(hash_of "$(node --version)" "$here"/node/*.json "$here"/node/*.mjs)
else
  say 'node or npm is not installed, so there are no clients for node (Debian and Ubuntu: install nodejs npm)'
fi

# Two at once would build into one directory.
exec 9>"$cache/.lock"
flock -n 9 || { say "waiting for another setup"; flock 9; }
[ -e "$python/made" ] || make_python "$python"
[ -x "$go/ask" ] || make_go "$go"
[ -z "$node" ] || [ -d "$node" ] || make_node "$node"

[ -z "$node" ] || printf 'AGENTID_INTEROP_NODE=%s\n' "$node"
printf 'AGENTID_INTEROP_PYTHON=%s\nAGENTID_INTEROP_GO=%s\n' "$python/bin/python" "$go/ask"
