#!/usr/bin/env bash
# `make demo`: what agentid does, step by step, on a real control plane of its own. Every step checks what
# it claims. The exit status is 0 only if all of them hold; whatever happens, nothing is left running.
#
# shellcheck disable=SC2016 # templates are kubectl's
#
# Invariant: no whole token and no key is ever printed or written to a file.
set -euo pipefail
umask 077
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/demo-lib.sh
. scripts/demo-lib.sh
# shellcheck source=scripts/demo-governance.sh
. scripts/demo-governance.sh

readonly NAMESPACE=support
# Where agentid serve will be, and an issuer of users' tokens for the demo.
service_port=$(free_port)
idp_port=$(free_port $((service_port + 1)))
readonly ISSUER=https://127.0.0.1:$service_port IDP=https://127.0.0.1:$idp_port

cat <<'STORY'
agentid demo: from YAML to a verified credential, and tokens on demand

Two agents of the namespace "support" get short-lived tokens for a service called "tickets".
In a second act a pod becomes an agent by itself, and security has its word.
There is no node on this machine, so no container runs. The demo plays the kubelet where one is
needed. Everything else is real: the API server, its controllers, the operator, the signatures.
STORY

step "A control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler"
tests/control-plane/cp.sh up --with-parent $$ 2>&1 | indent
eval "$(tests/control-plane/cp.sh env)"
tell "KUBECONFIG=$KUBECONFIG"

step "agentid is built (the first time this takes minutes)"
CARGO_TERM_PROGRESS_WHEN=never cargo build --locked 2>&1 | tail -n 1 | indent
agentid=${CARGO_TARGET_DIR:-target}/debug/agentid
tell "$("$agentid" --version)"

step "The kinds are installed"
show 'agentid crds | kubectl apply --server-side -f -'
"$agentid" crds | kubectl apply --server-side -f - | indent
kubectl wait --for=condition=Established --timeout=60s crd/agent{identities,resources,grants,blueprints,policies}.agentid.dev >/dev/null

step "The operator starts: it makes the signing keys, watches, and leads"
kubectl create namespace agentid-system >/dev/null
cat >"$state/configuration.yaml" <<CONFIGURATION
apiVersion: config.agentid.dev/v1alpha1
kind: Configuration
issuer: $ISSUER
trustDomain: agents.example.com
# Seconds, so that a rotation can be watched. Left out: 720h and 24h.
keys: {signFor: 10m, publishAhead: 3s}
serving: {ipAddresses: [127.0.0.1]}
statusLists: {ttl: 2s, lifetime: 1m}
userIssuers:
- issuer:
    url: $IDP
    allowedNetworks: [127.0.0.0/8]
    certificateAuthority: |
$(make_idp | sed 's/^/      /')
  subjectPrefix: 'corp:'
CONFIGURATION
grep -v -e CERTIFICATE -e '^ \{6\}' "$state/configuration.yaml" | indent
start_operator
await 60 "the operator is ready" operator_ready
await 60 "the operator has signing keys" signing_key
"$agentid" keys status | indent

step "A pod, its agent, a service and a grant: examples/tickets.yaml and examples/pod.yaml"
kubectl create namespace "$NAMESPACE" >/dev/null
await 60 "the namespace has its service account" exists serviceaccount default
applied=$EPOCHREALTIME
kubectl apply -f examples/tickets.yaml | indent
kubectl -n "$NAMESPACE" apply -f examples/pod.yaml | indent
await 30 "agent errand is Ready" is_ready errand
tell "Ready $(since "$applied") s after the first of these commands was given."
# The demo as kubelet.
kubectl -n "$NAMESPACE" patch pod errand --subresource=status --type=merge -p '{"status":{"phase":"Running"}}' >/dev/null
await 10 "the resource counts its holder" holders 1
show "kubectl -n $NAMESPACE get agentidentities,agentgrants,agentresources,secrets"
kubectl -n "$NAMESPACE" get agentidentities,agentgrants,agentresources,secrets | indent

step "What the pod finds in its volume: the files of Secret errand-agentid"
kubectl -n "$NAMESPACE" get secret errand-agentid \
  -o 'go-template={{range $k, $v := .data}}{{printf "%-14s %d characters, base64\n" $k (len $v)}}{{end}}' | indent
show "cat agent.json"
file errand agent.json | indent
file errand agent.json | grep -q '"file": "tickets.jwt"' || fail "agent.json does not list tickets.jwt"

step "Each token is verified with the published keys: jwks.json of ConfigMap agentid-trust"
show "agentid token inspect tickets.jwt"
file errand tickets.jwt | "$agentid" token inspect | indent
show "agentid token verify --jwks jwks.json --issuer $ISSUER --audience <each token's> <file>"
verify "identity.jwt" "$ISSUER" "$(file errand identity.jwt)"
verify "tickets.jwt" https://tickets.example.com "$(file errand tickets.jwt)"
refuse "tickets.jwt for another audience" https://other.example.com "$(file errand tickets.jwt)"
refuse "tickets.jwt with a changed claim" https://tickets.example.com "$(tampered "$(file errand tickets.jwt)")"

step "The signing keys rotate: a new key is published, then signs; the old one stays published"
old_token=$(file errand tickets.jwt)
old_key=$(signing_key)
show "agentid keys rotate"
"$agentid" keys rotate 2>/dev/null | indent
await 60 "a new key signs" other_key_than "$old_key"
"$agentid" keys status | indent
tell "A second agent comes, bound to a Deployment: examples/deployment.yaml and examples/triage.yaml"
kubectl -n "$NAMESPACE" apply -f examples/deployment.yaml -f examples/triage.yaml | indent
await 30 "agent triage is Ready" is_ready triage
new_token=$(file triage tickets.jwt)
tell "errand's token was signed by $(kid "$old_token")"
tell "triage's token was signed by $(kid "$new_token")"
[ "$(kid "$old_token")" != "$(kid "$new_token")" ] || fail "both tokens were signed by one key"
verify "errand's, of the old key" https://tickets.example.com "$old_token"
verify "triage's, of the new key" https://tickets.example.com "$new_token"

step "Somebody edits the Secret: it is healed"
show "kubectl -n $NAMESPACE patch secret errand-agentid --type=merge -p '{\"stringData\":{\"tickets.jwt\":\"forged\"}}'"
edited=$EPOCHREALTIME
kubectl -n "$NAMESPACE" patch secret errand-agentid --type=merge -p '{"stringData":{"tickets.jwt":"forged"}}' | indent
await 30 "tickets.jwt is a token again" has_new_token errand tickets.jwt "$old_token"
tell "Healed $(since "$edited") s after the edit was sent."
verify "tickets.jwt, healed" https://tickets.example.com "$(file errand tickets.jwt)"

step "The token service: agentid serve, with a certificate that the operator made"
start_service
await 60 "the token service is ready" service_ready
show "curl \$ISSUER/.well-known/openid-configuration"
ask .well-known/openid-configuration | tr ',' '\n' | grep -E '"(issuer|token_endpoint|jwks_uri)"' | indent

step "The pod buys a token with its own service-account token"
show "curl \$ISSUER/token -d grant_type=client_credentials -d client_assertion=<the pod's token> -d resource=https://tickets.example.com"
await 30 "the token service knows the pod" buys_token
on_demand=$(buy_token | member access_token)
"$agentid" token inspect <<<"$on_demand" | indent
verify "the token on demand" https://tickets.example.com "$on_demand"

step "A user hands over a live token: the agent acts in ann's name, and it shows"
kubectl patch agentresource tickets --type=json \
  -p '[{"op":"add","path":"/spec/allow/0/modes","value":["Application","Delegation"]}]' | indent
kubectl -n "$NAMESPACE" apply -f - <<GRANT | indent
apiVersion: agentid.dev/v1alpha1
kind: AgentGrant
metadata: {name: errand-for-ann}
spec:
  agents: {names: [errand]}
  resource: tickets
  delegation: {issuer: "$IDP", subjects: [ann], scopes: [tickets.read]}
GRANT
show "curl \$ISSUER/token -d grant_type=…:token-exchange -d subject_token=<ann's token for this agent> -d actor_token=<the pod's token>"
await 30 "the exchange is known" exchanges
delegated=$(exchange | member access_token)
claims_of "$delegated" | tr ',' '\n' | grep -E '"(sub|act|scope|sub_profile)"' | indent
claims_of "$delegated" | grep -q '"sub":"corp:ann"' || fail "the token is not in ann's name"

step "The service asks whether a token stands: introspection, and the status list"
kubectl -n "$NAMESPACE" create serviceaccount tickets-service | indent
kubectl patch agentresource tickets --type=merge \
  -p "{\"spec\":{\"introspectors\":[{\"namespace\":\"$NAMESPACE\",\"serviceAccountName\":\"tickets-service\"}]}}" | indent
await 30 "the token is active" introspects true "$on_demand"
await 30 "ann's too" introspects true "$delegated"
tell "introspection: active"
await 30 "its status bit is 0" status_bit 0 "$on_demand"
tell "status list:   VALID"

step "The service's owner takes the allowance back: the tokens are withdrawn"
show "kubectl patch agentresource tickets --type=json -p '[{\"op\":\"remove\",\"path\":\"/spec/allow\"}]'"
taken=$EPOCHREALTIME
kubectl patch agentresource tickets --type=json -p '[{"op":"remove","path":"/spec/allow"}]' | indent
await 30 "errand's tickets.jwt is gone" has_no_file errand tickets.jwt
await 30 "triage's tickets.jwt is gone" has_no_file triage tickets.jwt
await 30 "the tokens on demand are inactive" introspects false "$on_demand"
await 30 "its status bit has turned" status_bit 1 "$on_demand"
tell "The token on demand, too: introspection says inactive, its status bit has turned."
tell "Withdrawn from both Secrets $(since "$taken") s after the command was given. The agents keep their identities:"
await 10 "the agents say so" refused errand
kubectl -n "$NAMESPACE" get agentidentities | indent
show "agentid why errand tickets -n $NAMESPACE"
"$agentid" why errand tickets -n "$NAMESPACE" --config "$state/configuration.yaml" >"$state/why"
indent <"$state/why"
grep -q NamespaceNotAllowed "$state/why" || fail "the reason NamespaceNotAllowed is missing"
file errand agent.json | grep -q '"reason": "NamespaceNotAllowed"' || fail "agent.json does not say why tickets.jwt is missing"

step "The pod goes: so do its agent and its Secret"
show "kubectl -n $NAMESPACE delete pod errand"
deleted=$EPOCHREALTIME
kubectl -n "$NAMESPACE" delete pod errand | indent
await 60 "Secret errand-agentid is gone" absent secret errand-agentid
await 60 "AgentIdentity errand is gone" absent agentidentity errand
tell "Both were gone $(since "$deleted") s after the command was given. What is left is triage's:"
kubectl -n "$NAMESPACE" get agentidentities,secrets | indent
if buys_token; then fail "the pod's token still buys tokens"; fi
tell "Its service-account token buys nothing any more; ann's token in its hands: $(introspects false "$delegated" && echo inactive)"
exists secret triage-agentid || fail "triage-agentid is gone too"

second_act

step "The end: the service drains, the operator gives its lease back, the control plane goes"
finish
trap - EXIT

cat <<NEXT

Everything held, in $(since "$demo_began") s. What to try next:

  make up                                             a control plane that stays
  eval "\$(tests/control-plane/cp.sh env)"             KUBECONFIG, AGENTID_KUBECTL
  $agentid crds | "\$AGENTID_KUBECTL" apply --server-side -f -
  "\$AGENTID_KUBECTL" create namespace agentid-system
  $agentid operator --config examples/configuration.yaml --log-format pretty &
  "\$AGENTID_KUBECTL" create namespace $NAMESPACE
  "\$AGENTID_KUBECTL" apply -n $NAMESPACE -f examples/tickets.yaml -f examples/deployment.yaml -f examples/triage.yaml
  $agentid why triage -n $NAMESPACE
  make down                                           and away with it

  README.md             how a pod uses a credential, and how a service verifies it
  docs/operations.md    how to run the operator
NEXT
