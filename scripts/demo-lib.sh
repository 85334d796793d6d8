# shellcheck shell=bash disable=SC2154,SC2034,SC2016,SC2001
# NAMESPACE, ISSUER and agentid are demo.sh's, and so is the use of some variables; templates are kubectl's.
# The tools of demo.sh: its steps and their times, the operator as a process, looks at the cluster, checks.
# Sourced. Makes its state directory, and takes down what was started when the shell ends.

state=$(realpath -m "${CARGO_TARGET_DIR:-target}/demo")
export AGENTID_CP_DIR=$state/control-plane AGENTID_CP_PORT=auto
# The caller's own cluster, namespace or configuration is not what the demo works on.
unset AGENTID_CONFIG POD_NAMESPACE POD_NAME AGENTID_TEST_CONTEXT APISERVER_ARGS KCM_ARGS
demo_began=$EPOCHREALTIME step_began='' step_number=0 operator='' service='' idp=''

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
  if [ -s "$state/service.log" ]; then
    echo "The end of the token service's log:" >&2
    tail -n 15 "$state/service.log" | indent >&2
  fi
  exit 1
}

# ---- beginning and end ----------------------------------------------------------------------------

# Stops what was started. Sets operator_status, the operator's exit status.
take_down() {
  operator_status=0
  if [ -n "$service" ]; then
    kill -TERM "$service" 2>/dev/null || true
    wait "$service" 2>/dev/null || operator_status=$?
    service=''
  fi
  if [ -n "$idp" ]; then
    kill "$idp" 2>/dev/null || true
    wait "$idp" 2>/dev/null || true
    idp=''
  fi
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

for tool in cargo curl openssl flock awk sed base64 gzip od; do
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
  local port first=${1:-$((31000 + RANDOM % 500))}
  for ((port = first; port < 32700; port++)); do
    if ! (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port"; return; fi
  done
}

start_operator() {
  admin=127.0.0.1:$(free_port)
  "$agentid" operator --config "$state/configuration.yaml" --admin-listen "$admin" --log-format pretty \
    </dev/null >"$state/operator.log" 2>&1 &
  operator=$!
}

# ---- the token service, and an issuer of users' tokens --------------------------------------------

# Makes the users' issuer: its certificate (printed), its key set and its documents.
make_idp() {
  local dir=$state/idp
  mkdir -p "$dir/.well-known"
  openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=idp-ca -keyout "$state/ca.key" -out "$state/idp-ca.crt" 2>/dev/null
  openssl req -newkey rsa:2048 -nodes -subj /CN=idp -keyout "$dir/tls.key" -out "$state/idp.csr" 2>/dev/null
  openssl x509 -req -days 1 -in "$state/idp.csr" -CA "$state/idp-ca.crt" -CAkey "$state/ca.key" -CAcreateserial \
    -extfile <(echo subjectAltName=IP:127.0.0.1) -out "$dir/tls.crt" 2>/dev/null
  openssl genrsa -out "$dir/sign.key" 2048 2>/dev/null
  local modulus
  modulus=$(openssl rsa -in "$dir/sign.key" -noout -modulus | sed 's/^Modulus=//; s/../\\x&/g')
  printf '{"keys":[{"kty":"RSA","use":"sig","alg":"RS256","kid":"demo","e":"AQAB","n":"%s"}]}' \
    "$(printf '%b' "$modulus" | encode)" >"$dir/keys"
  printf '{"issuer":"%s","jwks_uri":"%s/keys"}' "$IDP" "$IDP" >"$dir/.well-known/openid-configuration"
  cat "$state/idp-ca.crt"
}

encode() { base64 -w 0 | tr '+/' '-_' | tr -d '='; }

# A token of the user ann for an agent.
users_token() { # AUDIENCE
  local now signed
  now=$(date +%s)
  signed=$(printf '{"alg":"RS256","kid":"demo","typ":"JWT"}' | encode).$(printf \
    '{"iss":"%s","sub":"ann","aud":"%s","iat":%d,"exp":%d,"scope":"tickets.read"}' "$IDP" "$1" "$now" $((now + 300)) | encode)
  printf '%s.%s' "$signed" "$(printf '%s' "$signed" | openssl dgst -sha256 -sign "$state/idp/sign.key" | encode)"
}

start_service() {
  (cd "$state/idp" && exec openssl s_server -accept "127.0.0.1:$idp_port" -cert tls.crt -key tls.key -WWW -quiet) \
    </dev/null >"$state/idp.log" 2>&1 &
  idp=$!
  service_admin=127.0.0.1:$(free_port)
  "$agentid" serve --config "$state/configuration.yaml" --listen "127.0.0.1:$service_port" \
    --admin-listen "$service_admin" --log-format pretty </dev/null >"$state/audit.log" 2>"$state/service.log" &
  service=$!
}

service_ready() {
  kubectl -n agentid-system get secret agentid-serving -o 'go-template={{index .data "ca.crt"}}' | base64 -d >"$state/ca.crt" &&
    curl --noproxy '*' -sf --max-time 2 "http://$service_admin/readyz" && ask jwks
}

ask() { curl --noproxy '*' --cacert "$state/ca.crt" -s --max-time 10 "$ISSUER/$1" "${@:2}"; }
member() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
claims_of() { local rest=${1#*.}; decode "${rest%%.*}"; }

pods_token() {
  kubectl -n "$NAMESPACE" create token errand --audience "$ISSUER" --bound-object-kind Pod --bound-object-name errand
}
readonly JWT_ASSERTION=urn:ietf:params:oauth:client-assertion-type:jwt-bearer TOKEN_TYPE=urn:ietf:params:oauth:token-type

# Secrets go in by standard input, so that no process list shows them.
buy_token() {
  local assertion
  assertion=$([ -n "${kept_pods_token:-}" ] && printf '%s' "$kept_pods_token" || pods_token) || return 1
  printf 'client_assertion=%s' "$assertion" | ask token -d grant_type=client_credentials \
    -d client_assertion_type=$JWT_ASSERTION --data-urlencode resource=https://tickets.example.com -d @-
}
buys_token() {
  [ -n "${kept_pods_token:-}" ] || kept_pods_token=$(pods_token)
  buy_token | grep -q '"access_token"'
}

exchange() {
  local agent
  agent=$(kubectl -n "$NAMESPACE" get agentidentity errand -o 'jsonpath={.status.agentId}')
  printf 'subject_token=%s&actor_token=%s' "$(users_token "$agent")" "$kept_pods_token" | ask token \
    -d grant_type=urn:ietf:params:oauth:grant-type:token-exchange -d subject_token_type=$TOKEN_TYPE:access_token \
    -d actor_token_type=$TOKEN_TYPE:jwt --data-urlencode resource=https://tickets.example.com -d @-
}
exchanges() { exchange | grep -q '"access_token"'; }

introspects() { # true|false TOKEN
  local assertion
  assertion=$(kubectl -n "$NAMESPACE" create token tickets-service --audience "$ISSUER") || return 1
  printf 'token=%s&client_assertion=%s' "$2" "$assertion" |
    ask introspect -d client_assertion_type=$JWT_ASSERTION -d @- | grep -q "\"active\":$1"
}

# Whether a token's bit in its status list reads so (Token Status List section 4: zlib, the lowest bit first).
status_bit() { # 0|1 TOKEN
  local claims index list byte
  claims=$(claims_of "$2")
  index=$(sed 's/.*"idx":\([0-9]*\).*/\1/' <<<"$claims")
  list=$(ask "statuslists/$(sed 's/.*statuslists\/\([0-9a-f]*\).*/\1/' <<<"$claims")") || return 1
  claims_of "$list" | member lst >"$state/list" || return 1
  byte=$( (printf '\x1f\x8b\x08\0\0\0\0\0\0\0'; decode "$(cat "$state/list")" | tail -c +3) | gzip -dc 2>/dev/null |
    od -An -tu1 -j $((index / 8)) -N 1)
  [ -n "$byte" ] && [ $(((byte >> (index % 8)) & 1)) = "$1" ]
}

operator_ready() { curl --noproxy '*' -sf --max-time 2 "http://$admin/readyz"; }

# The key that signs ES256 now.
signing_key() { "$agentid" keys status 2>/dev/null | awk '$2 == "ES256" && $3 == "tokens" && $4 == "Active" { print $1; found = 1 } END { exit !found }'; }
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
