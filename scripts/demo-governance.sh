# shellcheck shell=bash disable=SC2154,SC2016
# The second act of demo.sh: a blueprint makes an agent, policies take from it, a kill switch stops it. Sourced after
# demo-lib.sh, whose variables and tools it uses.

workers_token() {
  kubectl -n "$NAMESPACE" create token default --audience "$ISSUER" --bound-object-kind Pod --bound-object-name worker
}
worker_buys() {
  printf 'client_assertion=%s' "$workers_token" | ask token -d grant_type=client_credentials \
    -d client_assertion_type=$JWT_ASSERTION --data-urlencode resource=https://tickets.example.com -d @-
}
worker_has() { claims_of "$(worker_buys | member access_token)" | grep -qF "\"roles\":[$1]"; }
worker_refused() { worker_buys | grep -q "$1"; }
audited() { [ "$(condition worker PolicyCompliant)" = False ]; }

policy() { # ENFORCEMENT
  kubectl apply -f - <<POLICY
apiVersion: agentid.dev/v1alpha1
kind: AgentPolicy
metadata: {name: no-triage-by-machines}
spec:
  enforcement: $1
  match: {blueprints: [work*]}
  deny: [{roles: [triager], reason: "People set priorities"}]
POLICY
}

second_act() {
  step "Second act: a pod becomes an agent by itself, by a blueprint"
  kubectl patch agentresource tickets --type=merge -p \
    "{\"spec\":{\"allow\":[{\"namespaceSelector\":{\"matchLabels\":{\"kubernetes.io/metadata.name\":\"$NAMESPACE\"}}}]}}" | indent
  kubectl apply -f - <<BLUEPRINT | indent
apiVersion: agentid.dev/v1alpha1
kind: AgentBlueprint
metadata: {name: workers}
spec:
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NAMESPACE}}
  podSelector: {matchLabels: {app: worker}}
  identityPer: Pod
  grants:
  - {name: tickets, resource: tickets, application: {roles: [triager, reader]}}
BLUEPRINT
  show "kubectl -n $NAMESPACE run worker --labels app=worker,agentid.dev/agent="
  kubectl -n "$NAMESPACE" run worker --image example.com/worker --labels app=worker,agentid.dev/agent= | indent
  await 30 "agent worker is there, and Ready" is_ready worker
  kubectl -n "$NAMESPACE" get agentidentity worker | indent
  tell "Nobody wrote it, and it has no Secret: the pod's own service-account token buys what the blueprint grants."
  workers_token=$(workers_token)
  await 30 "the pod buys a token with both roles" worker_has '"triager","reader"'
  tell 'Its token says: "roles": ["triager", "reader"]'

  step "A policy that only audits says what it would take"
  policy Audit | indent
  await 30 "the agent says so" audited
  kubectl -n "$NAMESPACE" get agentidentity worker \
    -o 'jsonpath={.status.conditions[?(@.type=="PolicyCompliant")].message}' | indent
  worker_has '"triager","reader"' || fail "a policy in Audit took something"

  step "The same policy, enforced: the role is gone, whatever the grant says"
  policy Enforce | indent
  await 30 "the token has one role left" worker_has '"reader"'
  show "agentid why worker tickets -n $NAMESPACE"
  "$agentid" why worker tickets -n "$NAMESPACE" --config "$state/configuration.yaml" >"$state/why"
  indent <"$state/why"
  grep -q PolicyDenied "$state/why" || fail "the reason PolicyDenied is missing"

  step "The kill switch: every agent of the blueprint is stopped, and started again"
  local stopped=$EPOCHREALTIME token
  token=$(worker_buys | member access_token)
  await 30 "the token is active" introspects true "$token"
  show "kubectl patch agentblueprint workers --type=merge -p '{\"spec\":{\"suspend\":true}}'"
  stopped=$EPOCHREALTIME
  kubectl patch agentblueprint workers --type=merge -p '{"spec":{"suspend":true}}' | indent
  await 30 "the token service refuses it" worker_refused Suspended
  await 30 "its token is inactive" introspects false "$token"
  tell "Refused, and its token inactive, $(since "$stopped") s after the command was given."
  kubectl patch agentblueprint workers --type=merge -p '{"spec":{"suspend":false}}' | indent
  await 30 "it buys tokens again" worker_has '"reader"'
  introspects false "$token" || fail "a token of before the stop came back to life"
  tell "Lifted: it buys tokens again, and those of before stay dead."
  kubectl -n "$NAMESPACE" delete pod worker | indent
  await 60 "its agent is gone with its pod" absent agentidentity worker
}
