#!/usr/bin/env bash
# Makes the two verifiers that are not of our making and prints their commands: joserfc and Authlib in Python, go-oidc
# in Go. What is made lies outside the checkout, is found again by the hash of its sources, and may be deleted any time.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tests/verifiers/setup.sh [--print-env]

Makes, once, ${AGENTID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/agentid}/verifiers/{python,go}-<hash>/verify and prints
both paths. Each is called as: verify JWKS_FILE ISSUER AUDIENCE access|identity < token

  --print-env   print AGENTID_VERIFIER_PYTHON=... and AGENTID_VERIFIER_GO=... instead

Needs python3 (3.9 or later, with venv), go (1.25 or later), flock and sha256sum, and the first time the network for
their packages (pip's and Go's usual settings hold). The first time takes about a minute.
TEXT
}

print_env=false
case "${1-}" in
  '') ;;
  --print-env) print_env=true ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

say() { printf 'verifiers: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
need() { command -v "$1" >/dev/null || die "$1 is not installed${2:+: $2}"; }

need python3 'version 3.9 or later'
need go 'version 1.25 or later'
need flock
need sha256sum

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${AGENTID_CACHE:-${XDG_CACHE_HOME:-${HOME:?neither AGENTID_CACHE nor HOME is set}/.cache}/agentid}/verifiers
mkdir -p "$cache" || die "cannot make $cache; name another place by AGENTID_CACHE"

# Of the sources and of what they are made with: another Python or Go makes another verifier.
hash_of() { { cat "${@:2}"; printf '%s' "$1"; } | sha256sum | cut -c1-12; }

make_python() {
  local dir=$1 log=$1.log
  say "making the Python verifier (pip install of joserfc and Authlib, about 20 s) in $dir"
  rm -rf "$dir"
  python3 -m venv "$dir/venv" >"$log" 2>&1 ||
    { cat "$log" >&2; die "python3 -m venv failed (Debian and Ubuntu: install python3-venv)"; }
  "$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --requirement "$here/python/requirements.txt" >"$log" 2>&1 ||
    { cat "$log" >&2; die "pip install failed; is the package index reachable?"; }
  cp "$here/python/verify.py" "$dir/verify.py"
  # Last, since its being there says that all is made.
  printf '#!/bin/sh\nexec "%s/venv/bin/python" "%s/verify.py" "$@"\n' "$dir" "$dir" >"$dir/verify.new"
  chmod +x "$dir/verify.new"
  mv "$dir/verify.new" "$dir/verify"
}

make_go() {
  local dir=$1 log=$1.log
  say "making the Go verifier (go build of go-oidc, up to a minute) in $dir"
  rm -rf "$dir"
  mkdir -p "$dir"
  (cd "$here/go" && GOWORK=off CGO_ENABLED=0 go build -mod=readonly -trimpath -o "$dir/verify.new" .) >"$log" 2>&1 ||
    { cat "$log" >&2; die "go build failed; is the module proxy reachable, and Go 1.25 or later?"; }
  mv "$dir/verify.new" "$dir/verify"
}

python=$cache/python-$(hash_of "$(python3 -c 'import sys; print(sys.version, sys.prefix)')" \
  "$here/python/requirements.txt" "$here/python/verify.py")
go=$cache/go-$(hash_of "$(go env GOVERSION GOOS GOARCH)" "$here/go/go.mod" "$here/go/go.sum" "$here/go/main.go")

# Two at once would build into one directory.
exec 9>"$cache/.lock"
flock -n 9 || { say "waiting for another setup"; flock 9; }
[ -x "$python/verify" ] || make_python "$python"
[ -x "$go/verify" ] || make_go "$go"

if $print_env; then
  printf 'AGENTID_VERIFIER_PYTHON=%s\nAGENTID_VERIFIER_GO=%s\n' "$python/verify" "$go/verify"
else
  printf '%s\n' "$python/verify" "$go/verify"
fi
