#!/usr/bin/env bash
# All tests, those on a real control plane among them. They start that control plane themselves and it
# ends with them; one that is up already (`make up`) is used and stays.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The programs first, where progress is seen: the first time this takes minutes.
[ -n "${AGENTID_TEST_CONTEXT:-}" ] || tests/control-plane/get.sh >/dev/null
tests/verifiers/setup.sh >/dev/null
tests/interop/setup.sh >/dev/null
tests/chart/setup.sh >/dev/null
# Without it, the test of the alerts says that it was skipped.
tests/alerts/setup.sh >/dev/null || true
# The image and the node's programs, where there can be a node. Where not, or where these can't be had, all other tests run:
# the node's own says that it was skipped, and why; an image that can't be built fails it.
if [ -z "${AGENTID_TEST_CONTEXT:-}" ] && tests/node/node.sh check >/dev/null && tests/node/get.sh >/dev/null; then
  # Named, so that the test doesn't build it anew.
  AGENTID_TEST_IMAGE=${AGENTID_TEST_IMAGE:-$(scripts/image.sh)} || AGENTID_TEST_IMAGE=
  if [ -n "$AGENTID_TEST_IMAGE" ]; then export AGENTID_TEST_IMAGE; else unset AGENTID_TEST_IMAGE; fi
fi

status=0
cargo test --locked --no-fail-fast "$@" || status=$?

# While this file exists a control plane depends on processes that have just ended: its watchdog is about
# to take it down.
parents=${AGENTID_CP_DIR:-${CARGO_TARGET_DIR:-target}/control-plane}/parents
for ((i = 0; i < 300; i++)); do
  [ -e "$parents" ] || break
  sleep 0.1
done
if [ -e "$parents" ]; then
  echo "the tests' control plane is still up: ${parents%/parents}" >&2
  status=1
fi
exit "$status"
