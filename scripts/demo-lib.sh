# shellcheck shell=bash disable=SC2154,SC2034,SC2016,SC2001
# NAMESPACE, ISSUER and agentid are demo.sh's, and so is the use of some variables; templates are kubectl's.
# The tools of demo.sh: its steps and their times, the operator as a process, looks at the cluster, checks.
# Sourced. Makes its state directory, and takes down what was started when the shell ends.

state=$(realpath -m "${CARGO_TARGET_DIR:-target}/demo")
export AGENTID_CP_DIR=$state/control-plane AGENTID_CP_PORT=auto
# The caller's own cluster, namespace or configuration is not what the demo works on.
unset AGENTID_CONFIG POD_NAMESPACE POD_NAME AGENTID_TEST_CONTEXT APISERVER_ARGS KCM_ARGS
demo_began=$EPOCHREALTIME step_began='' step_number=0 operator=''

# ---- words ----------------------------------------------------------------------------------------

since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }
indent() { awk '{ print "   | " $0 }'; }
tell() { printf '   %s\n' "$*"; }
show() { printf '   $ %s\n' "$*"; }

end_step() {
  [ -z "$step_began" ] || printf '   -- %s s\n' "$(since "$step_began")"
  step_began=''
}

step() {
  end_step
  step_number=$((step_number + 1))
  printf '\n%d. %s\n' "$step_number" "$1"
  step_began=$EPOCHREALTIME
}

fail() {
  printf '\nFAILED in step %d: %s\n' "$step_number" "$1" >&2
  if [ -s "$state/operator.log" ]; then
    echo "The end of the operator's log:" >&2
    tail -n 15 "$state/operator.log" | indent >&2
  fi
  exit 1
}

# ---- beginning and end ----------------------------------------------------------------------------

# Stops what was started. Sets operator_status, the operator's exit status.
take_down() {
  operator_status=0
  if [ -n "$operator" ]; then
    kill -TERM "$operator" 2>/dev/null || true
    wait "$operator" 2>/dev/null || operator_status=$?
    operator=''
  fi
  taken_down=$(tests/control-plane/cp.sh down 2>&1)
}

finish() {
  take_down
  indent <<<"$taken_down"
  [ "$operator_status" = 0 ] || fail "the operator ended with exit status $operator_status"
  end_step
  rm -rf "$state"
}

ended() {
  local status=$?
  # Whoever read what we print may be gone already: that must not keep us from taking things down.
  trap '' PIPE INT TERM HUP
  set +e
  printf '\nThe demo did not come to its end; taking everything down.\n' >&2
  take_down
  indent <<<"$taken_down" >&2
  rm -rf "$state"
  exit "$((status == 0 ? 1 : status))"
}

for tool in cargo curl openssl flock awk sed base64; do
  command -v "$tool" >/dev/null || { echo "the demo needs $tool: install it first (see README.md)" >&2; exit 1; }
done
mkdir -p "${state%/*}"
if ! mkdir "$state" 2>/dev/null; then
  # Of a demo that was killed, or of one that runs.
  if [ -e "$AGENTID_CP_DIR/parents" ]; then
    echo "another demo runs in $state, or has just been killed: try again when it is gone" >&2
    exit 1
  fi
  rm -rf "$state"
  mkdir "$state"
fi
trap ended EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- the operator and the cluster -----------------------------------------------------------------

kubectl() { "$AGENTID_KUBECTL" "$@"; }

# A port on loopback that nothing listens on.
free_port() {
  local port
  for ((port = 31000 + RANDOM % 500; port < 32700; port++)); do
    if ! (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port"; return; fi
  done
}

start_operator() {
  admin=127.0.0.1:$(free_port)
  "$agentid" operator --config "$state/configuration.yaml" --admin-listen "$admin" --log-format pretty \
    </dev/null >"$state/operator.log" 2>&1 &
  operator=$!
}

operator_ready() { curl --noproxy '*' -sf --max-time 2 "http://$admin/readyz"; }

# The key that signs ES256 now.
signing_key() { "$agentid" keys status 2>/dev/null | awk '$2 == "ES256" && $3 == "Active" { print $1; found = 1 } END { exit !found }'; }
other_key_than() { local key; key=$(signing_key) && [ "$key" != "$1" ]; }

exists() { kubectl -n "$NAMESPACE" get "$1" "$2" -o name >/dev/null 2>&1; }
# Only an answer that there is none counts: an API server that does not answer says nothing.
absent() { [ -z "$(kubectl -n "$NAMESPACE" get "$1" "$2" --ignore-not-found -o name || echo unknown)" ]; }

condition() { # AGENT TYPE -> its status
  kubectl -n "$NAMESPACE" get agentidentity "$1" -o "jsonpath={.status.conditions[?(@.type==\"$2\")].status}"
}
is_ready() { [ "$(condition "$1" Ready)" = True ] && [ "$(condition "$1" GrantsHeld)" = True ]; }
refused() { [ "$(condition "$1" Ready)" = True ] && [ "$(condition "$1" GrantsHeld)" = False ]; }
holders() { [ "$(kubectl get agentresource tickets -o 'jsonpath={.status.holders}')" = "$1" ]; }

file() { # AGENT FILE -> its content in the agent's Secret
  kubectl -n "$NAMESPACE" get secret "$1-agentid" -o "go-template={{index .data \"$2\"}}" | base64 -d
}
has_new_token() { local token; token=$(file "$1" "$2") && [[ $token == *.*.* && $token != "$3" ]]; }
has_no_file() {
  local files
  files=$(kubectl -n "$NAMESPACE" get secret "$1-agentid" -o 'go-template={{range $k, $v := .data}}{{$k}} {{end}}') &&
    [[ " $files" == *" identity.jwt "* && " $files" != *" $2 "* ]]
}

# await SECONDS WHAT COMMAND...: until the command succeeds.
await() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ -n "$operator" ] && ! kill -0 "$operator" 2>/dev/null; then fail "the operator ended while we waited: $what"; fi
    ((SECONDS < deadline)) || fail "not in time: $what"
    sleep 0.05
  done
}

# ---- tokens ---------------------------------------------------------------------------------------

jwks() { kubectl -n "$NAMESPACE" get configmap agentid-trust -o 'jsonpath={.data.jwks\.json}'; }

check_token() { # AUDIENCE TOKEN
  local typ=access
  [ "$1" != "$ISSUER" ] || typ=identity
  "$agentid" token verify --jwks <(jwks) --issuer "$ISSUER" --audience "$1" --typ "$typ" - <<<"$2" 2>&1
}

verify() { # WHAT AUDIENCE TOKEN
  local said
  if said=$(check_token "$2" "$3"); then tell "accepted: $1 (audience $2)"; else fail "$1 was refused: $said"; fi
}

refuse() { # WHAT AUDIENCE TOKEN
  local said
  if said=$(check_token "$2" "$3"); then fail "$1 was accepted"; else tell "refused:  $1: $(tail -n 1 <<<"$said")"; fi
}

# base64url without padding (RFC 7515 section 2), to text.
decode() {
  local text=$1
  text=${text//-/+} text=${text//_//}
  while ((${#text} % 4)); do text+='='; done
  base64 -d <<<"$text"
}

kid() { local header; header=$(decode "${1%%.*}") && sed 's/.*"kid":"\([^"]*\)".*/\1/' <<<"$header"; }

# The same header and signature, over claims in which one role has become another.
tampered() {
  local header=${1%%.*} rest=${1#*.} claims
  claims=$(decode "${rest%%.*}" | sed 's/"reader"/"triager"/' | base64 -w 0 | tr '+/' '-_' | tr -d '=')
  printf '%s.%s.%s' "$header" "$claims" "${rest#*.}"
}
