#!/usr/bin/env bash
# Finds or makes the programs of a Kubernetes control plane, and prints the directory they are in.
#
# Looked for, in this order: KUBEBUILDER_ASSETS, our cache, the official downloads (checksums
# verified), a build from Go modules (kube/ and etcd/ beside this file). Only the directory goes to
# standard output; what is being done goes to standard error, as plain lines.
#
# Invariant: the cache directory is complete or absent. It is filled in a temporary directory and
# renamed into place, under a lock, so that two callers never fetch or build the same thing twice.
set -euo pipefail

readonly ETCD=v3.7.1 # Kubernetes' is in programs.sh
readonly PROGRAMS=(etcd kube-apiserver kube-controller-manager kube-scheduler kubectl)
readonly MULTI=(kube-apiserver kube-controller-manager kube-scheduler kubectl)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache_root=${AGENTID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/agentid}/control-plane
readonly LABEL=control-plane
# shellcheck source=tests/control-plane/programs.sh
. "$here/programs.sh"

usage() {
  cat <<'USAGE'
usage: get.sh [--help]
Prints the directory that holds etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl.

  KUBEBUILDER_ASSETS         a directory to use instead, if it has all five programs
  AGENTID_CACHE              the cache (default ${XDG_CACHE_HOME:-~/.cache}/agentid)
  AGENTID_NO_DOWNLOAD=1      don't try the official downloads, build at once
  AGENTID_HEARTBEAT_SECONDS  seconds between progress lines (default 20)
USAGE
}

# ---- official downloads ---------------------------------------------------------------------------

download_all() {
  local out=$1 program name base=https://dl.k8s.io/release/$KUBERNETES/bin/linux/$arch
  for program in "${MULTI[@]}"; do
    fetched "$base/$program" "$scratch/$program" sha512sum "$base/$program.sha512" || return 1
    install -m 755 "$scratch/$program" "$out/$program" && rm "$scratch/$program" || return 1
  done
  # etcd publishes SHA-256 sums only.
  name=etcd-$ETCD-linux-$arch.tar.gz base=https://github.com/etcd-io/etcd/releases/download/$ETCD
  fetched "$base/$name" "$scratch/$name" sha256sum "$base/SHA256SUMS" || return 1
  tar -xzf "$scratch/$name" -C "$scratch" "${name%.tar.gz}/etcd" &&
    install -m 755 "$scratch/${name%.tar.gz}/etcd" "$out/etcd"
}

try_download() {
  local log=$scratch/download.log why
  if [ "${AGENTID_NO_DOWNLOAD:-}" = 1 ]; then say "downloads are switched off (AGENTID_NO_DOWNLOAD=1)"; return 1; fi
  command -v curl >/dev/null || { say "no curl, so nothing is downloaded"; return 1; }
  say "trying the official downloads (about 330 MB)"
  if run "$log" downloaded download_all "$1"; then return 0; fi
  why=$(tail -n 1 "$log")
  say "the official downloads are not to be had (${why:-no reason given})"
  return 1
}

# ---- build from Go modules ------------------------------------------------------------------------

try_build() {
  local out=$1 go toolchain program free start=$SECONDS
  go=$(find_go) || { say "no Go found to build with"; return 1; }
  toolchain=$(choose_toolchain "$go") || { say "$("$go" version) is too old to build with"; return 1; }
  # The user's settings for their own Go projects (a workspace, vendoring, cgo) don't belong here.
  export GOTOOLCHAIN=$toolchain GOWORK=off GOFLAGS='-mod=readonly -buildvcs=false' CGO_ENABLED=0
  unset GOOS GOARCH GOEXPERIMENT
  free=$(df -Pm "$("$go" env GOCACHE)" 2>/dev/null | awk 'NR == 2 { print $4 }')
  if [ -n "$free" ] && ((free < 6000)); then
    say "only $free MB are free for Go's build cache; a first build needs about 6000"
  fi
  say "building Kubernetes $KUBERNETES and etcd $ETCD from Go modules: about 7 minutes on two cores the first time, once per machine"
  build_module "$here/etcd" go.etcd.io/etcd/server/v3 "$out/etcd" "etcd" || return 1
  build_module "$here/kube" . "$out/kubernetes" "Kubernetes" || return 1
  for program in "${MULTI[@]}"; do ln -s kubernetes "$out/$program"; done
  say "built in $(elapsed $((SECONDS - start)))"
}

# ---- the order of places --------------------------------------------------------------------------

case ${1:-} in
  '') ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

[ "$(uname -s)" = Linux ] || die "a control plane runs on Linux only (this is $(uname -s)); set AGENTID_TEST_CONTEXT to use an existing cluster"

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
  missing=$(missing_in "$KUBEBUILDER_ASSETS")
  if [ -z "$missing" ]; then
    found=$("$KUBEBUILDER_ASSETS/kube-apiserver" --version 2>/dev/null || echo 'unknown version')
    [ "$found" = "Kubernetes $KUBERNETES" ] || say "KUBEBUILDER_ASSETS holds $found; the tests are written for $KUBERNETES"
    (cd "$KUBEBUILDER_ASSETS" && pwd)
    exit 0
  fi
  say "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS lacks: $missing; looking further"
fi

target=$cache_root/$KUBERNETES-linux-$arch
in_cache() { [ -z "$(missing_in "$target")" ] && [ "$(cat "$target/VERSIONS" 2>/dev/null)" = "kubernetes $KUBERNETES etcd $ETCD" ]; }
if in_cache; then echo "$target"; exit 0; fi

command -v flock >/dev/null || die "flock is needed: install util-linux"
mkdir -p "$cache_root"
exec 9>"$cache_root/.lock"
if ! flock -n 9; then
  say "another process is fetching or building the control plane; waiting for it"
  start=$SECONDS
  until flock -w "$HEARTBEAT_SECONDS" 9; do say "  … waiting for it, $(elapsed $((SECONDS - start)))"; done
  if in_cache; then echo "$target"; exit 0; fi
fi

rm -rf "$cache_root"/.new.* # of callers that were killed: we hold the lock
# On the cache's own file system, so that the last step is a rename.
scratch=$(mktemp -d "$cache_root/.new.XXXXXX")
mkdir "$scratch/bin"
if ! try_download "$scratch/bin"; then
  rm -rf "${scratch:?}/bin"
  mkdir "$scratch/bin"
  try_build "$scratch/bin" ||
    die "no way left to get Kubernetes $KUBERNETES and etcd $ETCD. Do one of these: install Go 1.26 or later (https://go.dev/dl/) with access to a Go module proxy; give this machine access to dl.k8s.io and github.com; or set KUBEBUILDER_ASSETS to a directory with ${PROGRAMS[*]}"
fi
missing=$(missing_in "$scratch/bin")
[ -z "$missing" ] || die "these programs are missing after a fetch or build that said it succeeded: $missing"
echo "kubernetes $KUBERNETES etcd $ETCD" >"$scratch/bin/VERSIONS"
chmod 755 "$scratch/bin"
rm -rf "$target" # another version of etcd, or something incomplete that we did not make
mv "$scratch/bin" "$target"
say "installed in $target"
echo "$target"
