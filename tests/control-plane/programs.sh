# shellcheck shell=bash disable=SC2034,SC2154 # LABEL is the caller's, as is the use of some variables
# How programs of others are fetched or built: with progress, in bounds of time, whole or not at all. Sourced by get.sh
# of this directory and of tests/node, which set LABEL.
#
# Invariant: an interrupt ends what was started with it, and leaves no scratch directory.

readonly KUBERNETES=v1.37.1
# Used where the installed Go is older than kube/go.mod allows and may fetch toolchains by itself.
readonly GO_TOOLCHAIN=go1.26.8
readonly HEARTBEAT_SECONDS=${AGENTID_HEARTBEAT_SECONDS:-20}

case $(uname -m) in
  x86_64) arch=amd64 ;;
  aarch64 | arm64) arch=arm64 ;;
  *) arch=$(uname -m) ;;
esac

child='' scratch=''
exec 3>&2 # where say() writes, also from commands whose own standard error is a log

say() { printf '%s: %s\n' "$LABEL" "$*" >&3; }
die() { say "error: $*"; exit 1; }

cleanup() {
  [ -z "$child" ] || kill -- "-$child" 2>/dev/null || true
  [ -z "$scratch" ] || rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

elapsed() { printf '%dm%02ds' $(($1 / 60)) $(($1 % 60)); }

# run LOG PROGRESS COMMAND...: the command's status, with a line every HEARTBEAT_SECONDS. PROGRESS is
# a command that prints how far it is. The command runs in the background and is polled, because
# bash handles signals only between foreground commands, and a build takes minutes; and in a process
# group of its own (set -m), so that an interrupt ends curl or the compilers with it.
run() {
  local log=$1 progress=$2 start=$SECONDS next=$HEARTBEAT_SECONDS status=0
  shift 2
  set -m
  "$@" >"$log" 2>&1 </dev/null 9>&- &
  child=$!
  set +m
  while kill -0 "$child" 2>/dev/null; do
    sleep 0.2
    if ((SECONDS - start >= next)); then
      say "  … $(elapsed $((SECONDS - start)))$($progress)"
      next=$((next + HEARTBEAT_SECONDS))
    fi
  done
  wait "$child" || status=$?
  child=''
  return "$status"
}

# ---- official downloads ---------------------------------------------------------------------------

# A host that can't be reached, or a stalled transfer, must cost seconds: the build comes next.
fetch() { curl -fsSL --connect-timeout 3 --speed-limit 50000 --speed-time 15 --max-time "$1" -o "$3" "$2"; }

downloaded() { printf ', %s MB' "$(du -sm "$scratch" | cut -f1)"; }

# checked SUMCOMMAND HEX FILE
checked() { [ -n "$2" ] && printf '%s  %s\n' "$2" "$3" | "$1" --check --status; }

# fetched URL FILE SUMCOMMAND SUMSURL: the sum is the first word, of the file's line where there are several.
fetched() {
  local hex name=${1##*/}
  # The checksum first: it is small, so an unreachable host shows at once.
  fetch 10 "$4" "$2.sums" || return 1
  say "fetching $name from $(cut -d/ -f3 <<<"$1")"
  fetch 900 "$1" "$2" || return 1
  hex=$(awk -v name="$name" 'NF == 1 || $2 == name || $2 == "*" name { print $1; exit }' "$2.sums")
  checked "$3" "$hex" "$2" || { echo "$name: the checksum does not match"; return 1; }
}

# missing_in DIR: the programs DIR lacks, on one line.
missing_in() {
  local program lacking=()
  for program in "${PROGRAMS[@]}"; do [ -x "$1/$program" ] || lacking+=("$program"); done
  echo "${lacking[*]}"
}

# ---- build from Go modules ------------------------------------------------------------------------

find_go() {
  local candidate
  for candidate in "$(command -v go || true)" /usr/local/go/bin/go; do
    if [ -n "$candidate" ] && "$candidate" version >/dev/null 2>&1; then echo "$candidate"; return 0; fi
  done
  return 1
}

# Prints the GOTOOLCHAIN to build with: the installed Go if it is at least 1.26; else, from 1.21 on,
# Go fetches the one we name by itself, unless it is told to stay local.
choose_toolchain() {
  local version major minor
  version=$(GOTOOLCHAIN=local "$1" env GOVERSION) || return 1
  IFS=. read -r major minor _ <<<"${version#go}"
  minor=${minor%%[!0-9]*}
  [[ $major =~ ^[0-9]+$ && -n $minor ]] || return 1
  if ((major > 1 || minor >= 26)); then echo local; return 0; fi
  ((minor >= 21)) && [ "$("$1" env GOTOOLCHAIN)" != local ] && echo "$GO_TOOLCHAIN"
}

build_module() { # SOURCE PACKAGE OUTPUT LABEL
  local total compiled="$scratch/compile.log" package version ldflags='-s -w'
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    # Unstamped, /version says v0.0.0 and every version skew check goes wrong. etcd has neither package.
    version=${KUBERNETES#v1.}
    ldflags+=" -X $package.gitVersion=$KUBERNETES -X $package.gitMajor=1 -X $package.gitMinor=${version%.*}"
    ldflags+=" -X $package.gitTreeState=clean -X $package.gitCommit=unknown"
  done
  modules() { printf ', %s modules fetched' "$(grep -c '^go: downloading' "$scratch/modules.log" || true)"; }
  packages() { printf ', %s of at most %s packages compiled' "$(grep -vc '^go: ' "$compiled" || true)" "$total"; }
  say "$4: fetching its Go modules"
  run "$scratch/modules.log" modules "$go" -C "$1" list -deps -f '{{.ImportPath}}' "$2" ||
    { tail -n 5 "$scratch/modules.log" >&2; return 1; }
  total=$(grep -vc '^go: ' "$scratch/modules.log")
  say "$4: compiling (packages already in Go's build cache are skipped)"
  run "$compiled" packages "$go" -C "$1" build -v -trimpath -ldflags "$ldflags" -o "$3" "$2" ||
    { tail -n 15 "$compiled" >&2; return 1; }
}
