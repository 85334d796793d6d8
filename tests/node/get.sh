#!/usr/bin/env bash
# Finds or makes the programs of a Kubernetes node, and prints the directory they are in.
#
# Looked for, in this order: our cache, the official downloads (checksums verified), a build from Go modules. runc is
# taken from this machine where it can't be downloaded: it is written in C as well. Only the directory goes to standard
# output; what is being done goes to standard error, as plain lines.
#
# Invariant: the cache directory is complete or absent, as that of the control plane's programs.
set -euo pipefail

readonly CONTAINERD=v2.4.2 CNI=v1.10.0 RUNC=v1.5.2
readonly RUNTIME=(containerd containerd-shim-runc-v2 ctr) NETWORK=(bridge host-local loopback)
readonly PROGRAMS=(kubelet "${RUNTIME[@]}" "${NETWORK[@]}" runc pause)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache_root=${AGENTID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/agentid}/node
readonly LABEL=node
# shellcheck source=tests/control-plane/programs.sh
. "$here/../control-plane/programs.sh"

usage() {
  cat <<'USAGE'
usage: get.sh [--help]
Prints the directory that holds kubelet, containerd, containerd-shim-runc-v2, ctr, runc, the CNI plugins bridge,
host-local and loopback, and pause.

  AGENTID_CACHE         the cache (default ${XDG_CACHE_HOME:-~/.cache}/agentid)
  AGENTID_NO_DOWNLOAD=1 don't try the official downloads, build at once
Needs a C compiler, and for a build Go 1.26 or later and the package runc.
USAGE
}

download_all() {
  local out=$1 base name
  base=https://dl.k8s.io/release/$KUBERNETES/bin/linux/$arch/kubelet
  fetched "$base" "$scratch/kubelet" sha512sum "$base.sha512" && install -m 755 "$scratch/kubelet" "$out/" || return 1
  name=containerd-${CONTAINERD#v}-linux-$arch.tar.gz base=https://github.com/containerd/containerd/releases/download/$CONTAINERD
  fetched "$base/$name" "$scratch/$name" sha256sum "$base/$name.sha256sum" &&
    tar -xzf "$scratch/$name" -C "$out" --strip-components=1 "${RUNTIME[@]/#/bin/}" || return 1
  name=cni-plugins-linux-$arch-$CNI.tgz base=https://github.com/containernetworking/plugins/releases/download/$CNI
  fetched "$base/$name" "$scratch/$name" sha256sum "$base/$name.sha256" &&
    tar -xzf "$scratch/$name" -C "$out" "${NETWORK[@]/#/./}" || return 1
  name=runc.$arch base=https://github.com/opencontainers/runc/releases/download/$RUNC
  fetched "$base/$name" "$scratch/$name" sha256sum "$base/runc.sha256sum" && install -m 755 "$scratch/$name" "$out/runc"
}

try_download() {
  local log=$scratch/download.log why
  if [ "${AGENTID_NO_DOWNLOAD:-}" = 1 ]; then say "downloads are switched off (AGENTID_NO_DOWNLOAD=1)"; return 1; fi
  command -v curl >/dev/null || { say "no curl, so nothing is downloaded"; return 1; }
  say "trying the official downloads (about 150 MB)"
  if run "$log" downloaded download_all "$1"; then return 0; fi
  why=$(tail -n 1 "$log")
  say "the official downloads are not to be had (${why:-no reason given})"
  return 1
}

# install_programs DIR LABEL TAGS PACKAGE@VERSION...: by `go install`, which holds them to the module's own go.sum.
install_programs() {
  local out=$1 label=$2 tags=$3 log=$scratch/install.log
  shift 3
  modules() { printf ', %s lines of modules and packages' "$(wc -l <"$log")"; }
  say "$label: fetching and compiling"
  GOBIN=$out run "$log" modules "$go" install -v -trimpath -ldflags '-s -w' -tags "$tags" "$@" ||
    { tail -n 10 "$log" >&2; return 1; }
}

try_build() {
  local out=$1 go toolchain own start=$SECONDS
  own=$(command -v runc || true)
  [ -n "$own" ] || { say "runc is neither to be downloaded nor installed: install the package runc"; return 1; }
  go=$(find_go) || { say "no Go found to build with"; return 1; }
  toolchain=$(choose_toolchain "$go") || { say "$("$go" version) is too old to build with"; return 1; }
  export GOTOOLCHAIN=$toolchain GOWORK=off GOFLAGS='-mod=readonly -buildvcs=false' CGO_ENABLED=0
  unset GOOS GOARCH GOEXPERIMENT
  say "building kubelet $KUBERNETES, containerd $CONTAINERD and CNI plugins $CNI from Go modules: 3 to 8 minutes on two cores, once per machine"
  build_module "$here/../control-plane/kube" ./kubelet "$out/kubelet" kubelet || return 1
  local programs=("${RUNTIME[@]/#/github.com/containerd/containerd/v2/cmd/}")
  install_programs "$out" containerd "no_btrfs no_zfs no_devmapper" "${programs[@]/%/@$CONTAINERD}" || return 1
  programs=(main/bridge ipam/host-local main/loopback)
  programs=("${programs[@]/#/github.com/containernetworking/plugins/plugins/}")
  install_programs "$out" "CNI plugins" "" "${programs[@]/%/@$CNI}" || return 1
  install -m 755 "$own" "$out/runc"
  say "built in $(elapsed $((SECONDS - start)))"
}

case ${1:-} in
  '') ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

target=$cache_root/$KUBERNETES-linux-$arch
versions="kubernetes $KUBERNETES containerd $CONTAINERD cni $CNI runc $RUNC"
in_cache() { [ -z "$(missing_in "$target")" ] && [ "$(cat "$target/VERSIONS" 2>/dev/null)" = "$versions" ]; }
if in_cache; then echo "$target"; exit 0; fi
mkdir -p "$cache_root"
exec 9>"$cache_root/.lock"
flock -n 9 || { say "another process is fetching or building the node's programs; waiting for it"; flock 9; }
if in_cache; then echo "$target"; exit 0; fi

rm -rf "$cache_root"/.new.* # of callers that were killed: we hold the lock
scratch=$(mktemp -d "$cache_root/.new.XXXXXX")
mkdir "$scratch/bin"
if ! try_download "$scratch/bin"; then
  rm -rf "${scratch:?}/bin"
  mkdir "$scratch/bin"
  try_build "$scratch/bin" ||
    die "no way left to get the node's programs. Do one of these: install Go 1.26 or later and runc, with access to a Go module proxy; or give this machine access to dl.k8s.io and github.com"
fi
cc -Os -static -s -o "$scratch/bin/pause" "$here/pause.c" || die "pause.c does not compile: install gcc and libc6-dev"
missing=$(missing_in "$scratch/bin")
[ -z "$missing" ] || die "these programs are missing after a fetch or build that said it succeeded: $missing"
echo "$versions" >"$scratch/bin/VERSIONS"
chmod 755 "$scratch/bin"
rm -rf "$target"
mv "$scratch/bin" "$target"
say "installed in $target"
echo "$target"
