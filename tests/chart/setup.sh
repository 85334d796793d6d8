#!/usr/bin/env bash
# Finds or makes helm, and prints its path.
#
# Looked for, in this order: HELM, our cache, the official download (checksum verified), a build of its Go module.
# Only the path goes to standard output; what is being done goes to standard error.
#
# Invariant: the cached program is complete or absent: it is made in a temporary directory and renamed into place.
set -euo pipefail

readonly VERSION=v4.3.1

usage() {
  cat <<'USAGE'
usage: tests/chart/setup.sh [--help]
Prints the path of helm.

  HELM                   a program to use instead
  AGENTID_CACHE          the cache (default ${XDG_CACHE_HOME:-~/.cache}/agentid)
  AGENTID_NO_DOWNLOAD=1  don't try the official download, build at once (Go 1.26 or later; 2 to 4 minutes)
USAGE
}

say() { printf 'chart: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

case ${1:-} in
  '') ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

if [ -n "${HELM:-}" ]; then
  path=$(command -v "$HELM") || die "HELM=$HELM is no program"
  echo "$path"
  exit 0
fi

case $(uname -m) in
  x86_64) arch=amd64 ;;
  aarch64 | arm64) arch=arm64 ;;
  *) arch=$(uname -m) ;;
esac
root=${AGENTID_CACHE:-${XDG_CACHE_HOME:-${HOME:?neither AGENTID_CACHE nor HOME is set}/.cache}/agentid}/helm
target=$root/$VERSION-linux-$arch
if [ -x "$target/helm" ]; then echo "$target/helm"; exit 0; fi

command -v flock >/dev/null || die "flock is needed: install util-linux"
mkdir -p "$root"
# Two at once would fetch or build the same thing twice.
exec 9>"$root/.lock"
flock -n 9 || { say "waiting for another setup"; flock 9; }
if [ -x "$target/helm" ]; then echo "$target/helm"; exit 0; fi

rm -rf "$root"/.new.* # of callers that were killed: we hold the lock
scratch=$(mktemp -d "$root/.new.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/bin"

# A host that can't be reached, or a stalled transfer, must cost seconds: the build comes next.
fetch() { curl -fsSL --connect-timeout 3 --speed-limit 50000 --speed-time 15 --max-time "$1" -o "$3" "$2" 9>&-; }

download() {
  local name=helm-$VERSION-linux-$arch.tar.gz
  if [ "${AGENTID_NO_DOWNLOAD:-}" = 1 ]; then say "downloads are switched off (AGENTID_NO_DOWNLOAD=1)"; return 1; fi
  command -v curl >/dev/null || return 1
  say "trying the official download of helm $VERSION"
  # The checksum first: it is small, so an unreachable host shows at once.
  fetch 10 "https://get.helm.sh/$name.sha256sum" "$scratch/$name.sha256sum" 2>/dev/null &&
    fetch 300 "https://get.helm.sh/$name" "$scratch/$name" 2>/dev/null ||
    { say "it is not to be had"; return 1; }
  (cd "$scratch" && sha256sum --check --status "$name.sha256sum") || die "$name: the sha256 checksum does not match"
  tar -xzf "$scratch/$name" -C "$scratch" "linux-$arch/helm" && mv "$scratch/linux-$arch/helm" "$scratch/bin/helm"
}

build() {
  local log=$root/build.log go
  go=$(command -v go || echo /usr/local/go/bin/go)
  "$go" version >/dev/null 2>&1 || { say "no Go found to build with"; return 1; }
  say "building helm $VERSION from its Go module, once per machine: 2 to 4 minutes on two cores"
  # The user's settings for their own Go projects don't belong here.
  env -u GOOS -u GOARCH GOWORK=off GOFLAGS=-trimpath CGO_ENABLED=0 GOBIN="$scratch/bin" \
    "$go" install -ldflags '-s -w' "helm.sh/helm/v4/cmd/helm@$VERSION" >"$log" 2>&1 9>&- ||
    { tail -n 15 "$log" >&2; return 1; }
}

download || build ||
  die "no way left to get helm $VERSION: give this machine access to get.helm.sh, or to a Go module proxy with Go 1.26 or later, or set HELM to a helm"
rm -rf "$target"
mv "$scratch/bin" "$target"
say "installed in $target"
echo "$target/helm"
