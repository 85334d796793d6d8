#!/usr/bin/env bash
# The files of agentid's image, as a directory. `make image` packs it; the Dockerfile copies it: one content, two ways.
#
# Invariants: the same commit, toolchain and C library give the same files; nothing in them names this machine; the
# program needs no loader and no library.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export LC_ALL=C # the order of file names

usage() {
  cat <<'TEXT'
usage: scripts/image/root.sh [--arch amd64|arm64] [--profile PROFILE] DIRECTORY

Builds agentid as a static program and fills DIRECTORY with /agentid, /etc/ssl/certs/ca-certificates.crt (Mozilla's
authorities, for users' issuers) and /sbom/agentid.spdx.json. What was in DIRECTORY is replaced.

  --arch     another architecture than this machine's: needs rustup's target and a cross compiler (gcc-aarch64-linux-gnu
             or gcc-x86-64-linux-gnu)
  --profile  cargo's (default: release); dev is for trying things out
  AGENTID_CA_BUNDLE  a file (PEM) to use instead of /usr/share/ca-certificates/mozilla, Debian's ca-certificates
  SOURCE_DATE_EPOCH  the time that files and documents bear (default: the last commit's)
TEXT
}
die() { printf 'image: error: %s\n' "$*" >&2; exit 1; }

case $(uname -m) in
  x86_64) own=amd64 ;;
  aarch64 | arm64) own=arm64 ;;
  *) die "an image is for amd64 or arm64; this is $(uname -m): name one by --arch" ;;
esac
arch=$own profile=release out=
while [ $# -gt 0 ]; do
  case $1 in
    --arch) arch=${2:?--arch needs a value}; shift 2 ;;
    --profile) profile=${2:?--profile needs a value}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) [ -z "$out" ] || { usage >&2; exit 2; }; out=$1; shift ;;
  esac
done
[ -n "$out" ] || { usage >&2; exit 2; }
case $arch in
  amd64) target=x86_64-unknown-linux-gnu gcc=x86_64-linux-gnu-gcc ;;
  arm64) target=aarch64-unknown-linux-gnu gcc=aarch64-linux-gnu-gcc ;;
  *) die "--arch $arch: amd64 or arm64" ;;
esac
command -v python3 >/dev/null || die "python3 is needed: install it"
# Not this machine's bundle: an administrator may have added authorities to that.
authorities=(/usr/share/ca-certificates/mozilla/*.crt)
[ -z "${AGENTID_CA_BUNDLE:-}" ] || authorities=("$AGENTID_CA_BUNDLE")
[ -e "${authorities[0]}" ] || die "no ${authorities[0]}: install ca-certificates (Debian, Ubuntu), or name a bundle by AGENTID_CA_BUNDLE"

# ---- the program ----------------------------------------------------------------------------------

export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
cargo_home=${CARGO_HOME:-$HOME/.cargo}
# With --target these are for the program alone, not for what runs while it is built.
export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$PWD=/agentid --remap-path-prefix=$cargo_home=/cargo"
name=${target//-/_}
export "CFLAGS_$name=-ffile-prefix-map=$PWD=/agentid -ffile-prefix-map=$cargo_home=/cargo"
if [ "$arch" != "$own" ]; then
  command -v "$gcc" >/dev/null || die "no cross compiler: install ${gcc//_/-}, or gcc for $arch by its package's name"
  export "CC_$name=$gcc" "CARGO_TARGET_${name^^}_LINKER=$gcc"
fi
# Pages of 64 KiB: the largest that arm64 kernels have; jemalloc would take this machine's.
[ "$arch" != arm64 ] || export JEMALLOC_SYS_WITH_LG_PAGE=16
# Not the commit's time: what compiles C code would do so anew for each commit.
SOURCE_DATE_EPOCH=0 cargo build --locked --profile "$profile" --target "$target" --bin agentid >&2
[ "$profile" != dev ] || profile=debug
program=${CARGO_TARGET_DIR:-target}/$target/$profile/agentid

# ---- what is beside it ----------------------------------------------------------------------------

rm -rf "$out"
mkdir -p "$out/etc/ssl/certs" "$out/sbom"
install -m 755 "$program" "$out/agentid"
bundle=$out/etc/ssl/certs/ca-certificates.crt
cat "${authorities[@]}" >"$bundle"
scripts/image/sbom.py --target "$target" >"$out/sbom/agentid.spdx.json"
chmod 644 "$bundle" "$out/sbom/agentid.spdx.json"
find "$out" -type d -exec chmod 755 {} +
find "$out" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
