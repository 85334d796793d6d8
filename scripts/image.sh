#!/usr/bin/env bash
# `make image`: agentid's image as an OCI archive, without a daemon and without root.
#
# Invariant: the archive and its SPDX document are of one build; both are replaced at once or not at all.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: scripts/image.sh [--arch amd64|arm64]... [--profile PROFILE] [--name NAME:TAG]

Builds the program and writes ${CARGO_TARGET_DIR:-target}/image/agentid.tar and agentid.spdx.json. Prints the archive.

  --arch     for this architecture (default: this machine's); given twice, the image is for both
  --profile  cargo's (default: release); dev is for trying things out, and its image is large
  --name     what the image is called (default: localhost/agentid:<version>)
See scripts/image/root.sh --help for what building for another architecture needs.

To a node:      ctr --namespace k8s.io images import target/image/agentid.tar
To kind:        kind load image-archive target/image/agentid.tar
To a registry:  skopeo copy --all oci-archive:target/image/agentid.tar docker://registry.example.com/agentid:0.1.0
TEXT
}

archs=() profile=release
version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
name=localhost/agentid:$version
while [ $# -gt 0 ]; do
  case $1 in
    --arch) archs+=("${2:?--arch needs a value}"); shift 2 ;;
    --profile) profile=${2:?--profile needs a value}; shift 2 ;;
    --name) name=${2:?--name needs a value}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
say() { printf 'image: %s\n' "$*" >&2; }

out=${CARGO_TARGET_DIR:-target}/image
mkdir -p "$out"
exec 9<"$out" && flock 9
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
began=$SECONDS
roots=()
say "building ${archs[*]:-for this machine}, profile $profile (release: some minutes the first time)"
for arch in "${archs[@]:-}"; do
  root=$out/root${arch:+-$arch}
  scripts/image/root.sh ${arch:+--arch "$arch"} --profile "$profile" "$root" 9<&-
  roots+=("$root")
done
# No loader and no PATH but ours: `agentid` is found as a program's name too, by probes.
said=$(scripts/image/oci.py --name "$name" --out "$out/agentid.tar.new" --entrypoint /agentid --env PATH=/ \
  --label "org.opencontainers.image.title=agentid" \
  --label "org.opencontainers.image.description=An identity of its own for every AI agent on Kubernetes" \
  --label "org.opencontainers.image.version=$version" \
  --label "org.opencontainers.image.licenses=Apache-2.0" \
  --label "org.opencontainers.image.revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
  --root "${roots[@]}")
cp "${roots[0]}/sbom/agentid.spdx.json" "$out/agentid.spdx.json"
mv "$out/agentid.tar.new" "$out/agentid.tar"
while read -r platform pulled unpacked; do
  [ -n "$pulled" ] && say "$name $platform: $pulled bytes to pull, $unpacked unpacked" || say "$name $platform"
done <<<"$said"
say "written in $((SECONDS - began)) s; what it is made of: $out/agentid.spdx.json"
echo "$out/agentid.tar"
