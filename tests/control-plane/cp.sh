#!/usr/bin/env bash
# A real Kubernetes control plane (etcd, kube-apiserver, kube-controller-manager, kube-scheduler) as
# plain processes on this machine. `cp.sh --help` says how to use it, README.md what to know.
#
# Invariants: everything listens on 127.0.0.1 only. Commands that change a control plane hold a lock on
# its state directory. `down` leaves no process behind and removes only files that we made.
set -euo pipefail
umask 077

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=$(realpath -m "${AGENTID_CP_DIR:-$here/../../target/control-plane}")
readonly here dir pki=$dir/pki log=$dir/log
readonly COMPONENTS=(etcd kube-apiserver kube-controller-manager kube-scheduler)
# etcd's two ports, the controller manager's and the scheduler's follow the API server's.
readonly DEFAULT_PORT=16443 PORTS=5
# shellcheck source=tests/control-plane/pki.sh
. "$here/pki.sh"
# shellcheck source=tests/control-plane/process.sh
. "$here/process.sh"

usage() {
  cat <<'USAGE'
usage: cp.sh COMMAND
  up [--with-parent PID]  start it, or repair what is missing of it; returns when it is ready.
                          With a parent it is taken down when every such PID is gone; a plain `up`
                          later makes it stay.
  down [--keep]           stop it and remove its state; --keep keeps the data for the next `up`
  status                  what runs; exit status 1 unless all of it does
  env                     shell lines to eval: KUBECONFIG, AGENTID_KUBECTL, AGENTID_AUDIT_LOG,
                          AGENTID_CP_DIR, AGENTID_CP_BIN
  stop-apiserver          stop the API server alone, gracefully (for fault tests)
  kill-apiserver          the same with SIGKILL
  start-apiserver         start it again; returns when it is ready
  pause-etcd              hold etcd still (SIGSTOP), as a stalled disk would
  resume-etcd             let it run on
  backup-etcd             copy etcd's data while it is held still; it runs on
  restore-etcd            stop everything, put the copy in the place of etcd's data, start everything;
                          returns when it is ready

  AGENTID_CP_DIR   state directory, one per control plane (default: target/control-plane)
  AGENTID_CP_PORT  first of five ports (default 16443), or `auto` for free ones
  APISERVER_ARGS   further flags for kube-apiserver; kept for its restarts
  KCM_ARGS         further flags for kube-controller-manager; kept for its restarts
Where the programs come from: get.sh --help.
USAGE
}

say() { printf 'control-plane: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# ---- state directory ------------------------------------------------------------------------------

# The lock is on the directory itself: no file is left of it. `down` removes the directory, so a
# waiter makes sure that what it locked is still there.
lock() {
  while :; do
    if [ -e "$dir" ] && [ ! -e "$dir/settings" ] && [ -n "$(find "$dir" -mindepth 1 -maxdepth 1 -print -quit)" ]; then
      die "$dir holds files that are not a control plane's: choose another AGENTID_CP_DIR"
    fi
    mkdir -p "$dir"
    exec 8<"$dir" && flock 8
    [ "$dir" -ef "/proc/self/fd/8" ] && return 0
  done
}

# Settings are chosen by an `up` that finds nothing running, and hold as long as anything runs: what
# a repair or a restart of one component starts must fit the rest.
save_settings() {
  local variable
  for variable in port instance bin apiserver_args kcm_args; do
    printf '%s=%q\n' "$variable" "${!variable}"
  done >"$dir/settings.new"
  mv "$dir/settings.new" "$dir/settings"
}

load_settings() {
  [ -s "$dir/settings" ] || return 1
  # shellcheck disable=SC1091 # written by save_settings
  . "$dir/settings"
}

# Anything that listens on a port, on whatever address, shows in these tables (state 0A).
port_free() {
  local hex
  printf -v hex '%04X' "$1"
  ! cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v hex="$hex" '$4 == "0A" { n = split($2, a, ":"); if (a[n] == hex) found = 1 } END { exit !found }'
}

block_free() {
  local i
  for ((i = 0; i < PORTS; i++)); do port_free $(($1 + i)) || return 1; done
}

choose_port() {
  local tries
  if [ "${AGENTID_CP_PORT:-$DEFAULT_PORT}" != auto ]; then
    port=${AGENTID_CP_PORT:-$DEFAULT_PORT}
    if [[ ! $port =~ ^[0-9]{4,5}$ ]] || ((port < 1024 || port > 65530)); then
      die "AGENTID_CP_PORT=$port: a port from 1024 to 65530, or auto"
    fi
    block_free "$port" || die "a port of $port-$((port + PORTS - 1)) is in use: set AGENTID_CP_PORT to another, or to auto"
    return
  fi
  # Below the range the kernel gives to outgoing connections, in aligned blocks: two that start at
  # once and draw the same block collide at etcd, the first to start, and draw again.
  for ((tries = 0; tries < 100; tries++)); do
    port=$((20000 + RANDOM % 2000 * PORTS))
    if block_free "$port"; then return; fi
  done
  die "no five free ports in 20000-30000"
}

# ---- components -----------------------------------------------------------------------------------

# No proxy: the caller's may not know our loopback.
http() { curl --noproxy '*' -sf --max-time 5 "$@"; }
api() { http --cacert "$pki/ca.crt" --cert "$pki/admin.crt" --key "$pki/admin.key" "https://127.0.0.1:$port$1"; }

# That it is our etcd, not one that took the port a moment before ours, is told by its name.
etcd_ready() { http -X POST -d '{}' "http://127.0.0.1:$((port + 1))/v3/cluster/member/list" | grep -q "\"name\":\"$instance\""; }
kube-apiserver_ready() { api /readyz; } # certificates tell it is ours; RBAC's bootstrap is part of readyz
kube-controller-manager_ready() { http -k "https://127.0.0.1:$((port + 3))/healthz"; }
kube-scheduler_ready() { http -k "https://127.0.0.1:$((port + 4))/healthz"; }
# Made by the controllers: without these pods are refused and the roles `view` and `edit` are empty.
controllers_ready() {
  api /api/v1/namespaces/default/serviceaccounts/default && api /api/v1/namespaces/default/configmaps/kube-root-ca.crt &&
    api /apis/rbac.authorization.k8s.io/v1/clusterroles/view | grep -q '"verbs"'
}

start_etcd() {
  local client=http://127.0.0.1:$((port + 1)) peer=http://127.0.0.1:$((port + 2))
  # --unsafe-no-fsync: a lost machine loses this data, and nobody minds. Latencies measured here are
  # therefore without the disk's share; say so beside them.
  launch etcd "$log/etcd.log" "$bin/etcd" --name="$instance" --data-dir="$dir/etcd" --unsafe-no-fsync \
    --listen-client-urls="$client" --advertise-client-urls="$client" \
    --listen-peer-urls="$peer" --initial-advertise-peer-urls="$peer" --initial-cluster="$instance=$peer" \
    --quota-backend-bytes=8589934592 --log-level=warn
}

start_kube-apiserver() {
  local extra
  read -ra extra <<<"$apiserver_args"
  # --advertise-address may not be loopback; it is a documentation address that, with no endpoint
  # reconciler, is written nowhere. The audit log is written before a request is answered (the
  # default, blocking, mode) and not rotated, so that lines in it can be counted. Without a grace
  # period for watches, a graceful stop waits a minute for those of the controllers.
  launch kube-apiserver "$log/kube-apiserver.log" "$bin/kube-apiserver" --etcd-servers="http://127.0.0.1:$((port + 1))" \
    --bind-address=127.0.0.1 --secure-port="$port" --advertise-address=192.0.2.1 --endpoint-reconciler-type=none \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-jwks-uri="https://127.0.0.1:$port/openid/v1/jwks" \
    --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key" \
    --requestheader-client-ca-file="$pki/front-proxy-ca.crt" --requestheader-allowed-names=front-proxy-client \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
    --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file="$pki/front-proxy-client.crt" --proxy-client-key-file="$pki/front-proxy-client.key" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --enable-aggregator-routing=true \
    --service-cluster-ip-range=10.0.0.0/16 --allow-privileged=true \
    --audit-policy-file="$here/audit-policy.yaml" --audit-log-path="$log/audit.log" --audit-log-maxsize=4096 \
    --shutdown-watch-termination-grace-period=2s "${extra[@]}"
}

# Its request rate stays at the defaults (20/s, bursts of 30): that is what users' clusters have.
start_kube-controller-manager() {
  local extra kubeconfig=$dir/kube-controller-manager.kubeconfig
  read -ra extra <<<"$kcm_args"
  launch kube-controller-manager "$log/kube-controller-manager.log" "$bin/kube-controller-manager" --kubeconfig="$kubeconfig" \
    --authentication-kubeconfig="$kubeconfig" --authorization-kubeconfig="$kubeconfig" \
    --bind-address=127.0.0.1 --secure-port=$((port + 3)) --leader-elect=false --use-service-account-credentials=true \
    --service-account-private-key-file="$pki/sa.key" --root-ca-file="$pki/ca.crt" \
    --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" "${extra[@]}"
}

start_kube-scheduler() {
  local kubeconfig=$dir/kube-scheduler.kubeconfig
  launch kube-scheduler "$log/kube-scheduler.log" "$bin/kube-scheduler" --kubeconfig="$kubeconfig" \
    --authentication-kubeconfig="$kubeconfig" --authorization-kubeconfig="$kubeconfig" \
    --bind-address=127.0.0.1 --secure-port=$((port + 4)) --leader-elect=false
}

# ---- commands -------------------------------------------------------------------------------------

started=()
undo_start() { # of an `up` that failed or was interrupted; logs stay
  [ ${#started[@]} -eq 0 ] || stop KILL "${started[@]}"
  rmdir "$dir" 2>/dev/null || true
}

start() { # NAME
  alive "$1" && return 0
  started+=("$1")
  rm -f "$dir/$1.pid"
  "start_$1"
  # launch() writes the PID in the child: without it, alive() would call a process dead that is starting.
  while [ ! -s "$dir/$1.pid" ]; do sleep 0.01; done
}

start_fresh_etcd() {
  local tries
  for ((tries = 0; tries < 5; tries++)); do
    : >"$log/etcd.log"
    start etcd
    await etcd 30 "etcd" etcd_ready && return 0
    [ "${AGENTID_CP_PORT:-}" = auto ] && grep -q 'address already in use' "$log/etcd.log" || return 1
    rm -rf "$dir/etcd" "$dir/etcd.pid"
    choose_port
    save_settings
  done
  return 1
}

need_tools() {
  local tool package
  for tool in openssl:openssl curl:curl flock:util-linux setsid:util-linux awk:mawk; do
    package=${tool#*:} tool=${tool%%:*}
    command -v "$tool" >/dev/null || die "$tool is needed: install the package $package"
  done
}

none_alive() {
  local name
  for name in "${COMPONENTS[@]}"; do if alive "$name"; then return 1; fi; done
}

all_ready() {
  local name
  for name in "${COMPONENTS[@]}"; do alive "$name" && "${name}_ready" >/dev/null 2>&1 || return 1; done
}

up() {
  local parent='' parent_started='' name began=$EPOCHREALTIME idle=0
  case ${1:-} in
    '') ;;
    --with-parent)
      parent=${2:-}
      parent_started=$(start_time "$parent") || die "--with-parent: there is no process '$parent'"
      ;;
    *) usage >&2; exit 2 ;;
  esac
  need_tools
  lock
  if load_settings && all_ready; then
    tie "$parent" "$parent_started" 0
    say "already up: https://127.0.0.1:$port"
    if [ "${APISERVER_ARGS-$apiserver_args}" != "$apiserver_args" ] || [ "${KCM_ARGS-$kcm_args}" != "$kcm_args" ]; then
      say "it runs with other APISERVER_ARGS or KCM_ARGS than these: take it down first to change them"
    fi
    return
  fi
  trap undo_start EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  if none_alive; then idle=1; fi
  if [ ! -x "${bin:-}/etcd" ]; then bin=$("$here/get.sh" 8<&-); fi
  if ((idle)); then
    instance=${instance:-agentid-$BASHPID-$RANDOM$RANDOM}
    apiserver_args=${APISERVER_ARGS-${apiserver_args:-}} kcm_args=${KCM_ARGS-${kcm_args:-}}
    if [ -n "${AGENTID_CP_PORT:-}" ] || [ -z "${port:-}" ] || ! block_free "$port"; then choose_port; fi
  fi
  save_settings
  mkdir -p "$log"
  if [ ! -d "$pki" ]; then pki_make "$pki" "$log/pki.log" || die "openssl could not make the certificates (needs OpenSSL 1.1.1 or later)"; fi
  ((idle)) || say "repairing the control plane in $dir"
  if [ ! -d "$dir/etcd" ]; then start_fresh_etcd || exit 1; else start etcd && await etcd 60 etcd etcd_ready; fi
  for name in admin kube-controller-manager kube-scheduler; do
    pki_kubeconfig "$pki" "$name" "https://127.0.0.1:$port" >"$dir/$name.kubeconfig"
  done
  start kube-apiserver
  await kube-apiserver 120 "the API server" kube-apiserver_ready
  start kube-controller-manager
  start kube-scheduler
  await kube-controller-manager 60 "the controller manager" kube-controller-manager_ready
  await kube-controller-manager 60 "the default service account and roles" controllers_ready
  await kube-scheduler 60 "the scheduler" kube-scheduler_ready
  tie "$parent" "$parent_started" "$idle"
  trap - EXIT INT TERM
  say "up in $(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }') s: https://127.0.0.1:$port, Kubernetes $(api /version | sed -n 's/.*"gitVersion": "\(.*\)".*/\1/p')"
  say "to use it: eval \"\$(${AGENTID_CP_DIR:+AGENTID_CP_DIR=${dir@Q} }$here/cp.sh env)\""
}

# tie PARENT STARTED IDLE: what the control plane's life depends on. The file `parents` exists while
# it depends on any: made by an `up --with-parent` that found nothing running, added to by further
# ones, removed by a plain `up`. One that runs untied is not tied by a later caller.
tie() {
  if [ -z "$1" ]; then rm -f "$dir/parents"; return; fi
  if [ -e "$dir/parents" ] || [ "$3" = 1 ]; then printf '%s %s\n' "$1" "$2" >>"$dir/parents"; fi
  if [ -e "$dir/parents" ] && ! alive watchdog; then
    launch watchdog "$log/watchdog.log" AGENTID_CP_DIR="$dir" "$here/cp.sh" watchdog
  fi
}

orphaned() {
  local pid begun
  [ -e "$dir/parents" ] || return 1
  while read -r pid begun; do if same_process "$pid" "$begun"; then return 1; fi; done <"$dir/parents"
}

watchdog() {
  while [ -e "$dir/parents" ]; do
    if orphaned; then
      lock
      # Again, under the lock: another `up` may just have tied or freed it.
      if orphaned; then take_down; return; fi
      exec 8<&-
    fi
    sleep 0.5
  done
}

take_down() { # [--keep]; the lock is held
  local signal=KILL pid # data that is thrown away needs no orderly end
  [ "${1:-}" != --keep ] || signal=TERM
  if pid=$(pid_of watchdog) && [ "$pid" != "$$" ]; then stop KILL watchdog; fi
  rm -f "$dir/parents"
  # A node beside it goes first.
  if [ -d "$dir/node" ]; then AGENTID_CP_DIR=$dir "$here/../node/node.sh" release; fi
  stop "$signal" kube-scheduler kube-controller-manager
  stop "$signal" kube-apiserver
  stop "$signal" etcd
  [ "${1:-}" != --keep ] || return 0
  rm -rf "$dir/etcd" "$dir/etcd.backup" "$pki" "$pki.new" "$log"
  rm -f "$dir"/*.pid "$dir"/*.kubeconfig "$dir/settings" "$dir/settings.new"
  rmdir "$dir" 2>/dev/null || say "$dir holds files that are not ours; they stay"
}

down() {
  case ${1:-} in '' | --keep) ;; *) usage >&2; exit 2 ;; esac
  if [ ! -e "$dir/settings" ]; then say "there is none in $dir"; return; fi
  lock
  take_down "$@"
  if [ "${1:-}" = --keep ]; then say "down; its data stays in $dir"; else say "down, its state removed"; fi
}

status() {
  local name pid rss all=0
  load_settings || { say "there is none in $dir"; return 1; }
  for name in "${COMPONENTS[@]}"; do
    if pid=$(pid_of "$name"); then
      rss=$(awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$pid/status" 2>/dev/null || true)
      printf '%-24s pid %-8s %5s MiB  %s\n' "$name" "$pid" "$rss" "$("${name}_ready" >/dev/null 2>&1 && echo ready || echo 'not ready')"
    else
      printf '%-24s down\n' "$name"
      all=1
    fi
  done
  printf 'https://127.0.0.1:%s, ports %s-%s, state in %s\n' "$port" "$port" "$((port + PORTS - 1))" "$dir"
  return "$all"
}

print_env() {
  if ! load_settings || [ ! -s "$dir/admin.kubeconfig" ]; then
    die "no control plane in $dir; start one with: $here/cp.sh up"
  fi
  printf 'export %s=%q\n' KUBECONFIG "$dir/admin.kubeconfig" AGENTID_KUBECTL "$bin/kubectl" \
    AGENTID_AUDIT_LOG "$log/audit.log" AGENTID_CP_DIR "$dir" AGENTID_CP_BIN "$bin"
}

with_apiserver() { # stop SIGNAL | start
  load_settings || die "no control plane in $dir"
  lock
  if [ "$1" = stop ]; then stop "$2" kube-apiserver; return; fi
  start kube-apiserver
  await kube-apiserver 120 "the API server" kube-apiserver_ready
  # They end where the API server goes while they begin; a kubelet would start them again.
  start kube-controller-manager
  start kube-scheduler
}

signal_etcd() { # SIGNAL
  local pid
  load_settings || die "no control plane in $dir"
  lock
  pid=$(pid_of etcd) || die "etcd does not run"
  kill -s "$1" "$pid"
}

# Held still it has written all that it has answered: a copy is what a killed etcd would leave.
backup_etcd() {
  local pid failed=0
  load_settings || die "no control plane in $dir"
  lock
  pid=$(pid_of etcd) || die "etcd does not run"
  rm -rf "$dir/etcd.backup"
  kill -s STOP "$pid"
  cp -a "$dir/etcd" "$dir/etcd.backup" || failed=1
  kill -s CONT "$pid"
  return "$failed"
}

# What holds a cache of the API server's starts anew too: it would not believe resourceVersions that are
# lower than those it knows.
restore_etcd() {
  load_settings || die "no control plane in $dir"
  [ -d "$dir/etcd.backup" ] || die "no backup of etcd in $dir: backup-etcd makes one"
  lock
  stop KILL kube-scheduler kube-controller-manager
  stop TERM kube-apiserver
  stop TERM etcd
  rm -rf "$dir/etcd"
  cp -a "$dir/etcd.backup" "$dir/etcd"
  start etcd
  await etcd 60 etcd etcd_ready
  start kube-apiserver
  await kube-apiserver 120 "the API server" kube-apiserver_ready
  start kube-controller-manager
  start kube-scheduler
  await kube-controller-manager 60 "the controller manager" kube-controller-manager_ready
  await kube-scheduler 60 "the scheduler" kube-scheduler_ready
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
  up) up "$@" ;;
  down) down "$@" ;;
  status) status ;;
  env) print_env ;;
  stop-apiserver) with_apiserver stop TERM ;;
  kill-apiserver) with_apiserver stop KILL ;;
  start-apiserver) with_apiserver start ;;
  pause-etcd) signal_etcd STOP ;;
  resume-etcd) signal_etcd CONT ;;
  backup-etcd) backup_etcd ;;
  restore-etcd) restore_etcd ;;
  watchdog) watchdog ;; # started by `up --with-parent`
  -h | --help | help) usage ;;
  *) usage >&2; exit 2 ;;
esac
