#!/usr/bin/env bash
# A real Kubernetes node (containerd, kubelet) beside a control plane of cp.sh, as root on this machine. `node.sh --help`
# says how to use it, README.md what to know.
#
# Invariants: containerd, kubelet and all that they start live in a PID and a mount namespace of their own, so that they
# and their mounts end with one process. What is outside (a bridge, control groups, empty directories, kernel settings)
# is taken away or put back by `down`, also after a crash. The bridge is the lock: one node a machine.
set -euo pipefail
umask 077

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cp_dir=$(realpath -m "${AGENTID_CP_DIR:-$here/../../target/node}")
# What process.sh goes by.
readonly dir=$cp_dir/node
readonly log=$dir/log pki=$dir/pki socket=$dir/containerd.sock
readonly CP=$here/../control-plane/cp.sh
readonly NODE=agentid-node BRIDGE=agentid0 PAUSE=localhost/pause:1 KUBELET_PORT=10950
# Of the block for benchmarks (RFC 2544): in no network that this machine could be in.
readonly POD_NETWORK=198.18.0.0/24 GATEWAY=198.18.0.1 SERVICE_NETWORK=198.19.0.0/16 DNS=198.19.0.10
# Where kubelet and containerd write whatever they are told: hidden from them by file systems in memory.
readonly PLACES=(/run/containerd /run/netns /var/lib/kubelet /var/lib/cni /var/log/containers)
# What the kubelet changes.
readonly SYSCTLS=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes)
# shellcheck source=tests/control-plane/pki.sh
. "$here/../control-plane/pki.sh"
# shellcheck source=tests/control-plane/process.sh
. "$here/../control-plane/process.sh"

usage() {
  cat <<'USAGE'
usage: node.sh COMMAND
  check                   whether this machine can have a node: exit status 0, or 3 and why not on standard output
  up [--with-parent PID]  start a control plane and a node of it; returns when the node is ready. The control plane, and
                          with it the node, ends as `cp.sh up` says. While another node is up on this machine it waits
                          for AGENTID_NODE_WAIT seconds (default 0).
  import ARCHIVE...       make images of OCI archives known to the node
  down                    stop both and remove their state
  status                  what runs
  env                     cp.sh env

  AGENTID_CP_DIR          state directory (default: target/node)
  AGENTID_CP_PORT         as cp.sh's (default: auto)
Where the programs come from: get.sh --help.
USAGE
}

say() { printf 'node: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
cp_sh() { AGENTID_CP_DIR=$cp_dir "$CP" "$@"; }
kubectl() { "$AGENTID_KUBECTL" --kubeconfig "$KUBECONFIG" "$@"; }
ctr() { "$bin/ctr" --address "$socket" --namespace k8s.io "$@"; }

# ---- can it be? -----------------------------------------------------------------------------------

# The directories of our control group: one, or with cgroup v1 one for each hierarchy.
groups() {
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    echo "/sys/fs/cgroup/$NODE"
  else
    local hierarchy
    for hierarchy in /sys/fs/cgroup/*/; do [ -L "${hierarchy%/}" ] || echo "$hierarchy$NODE"; done
  fi
}

# Prints why there can be no node, or nothing.
obstacle() {
  local tool controllers group
  [ "$(uname -s)" = Linux ] || { echo "this is $(uname -s), not Linux"; return; }
  [ "$(id -u)" = 0 ] || { echo "it needs root: containers of a kubelet do"; return; }
  for tool in ip:iproute2 unshare:util-linux mount:mount python3:python3 cc:gcc; do
    command -v "${tool%:*}" >/dev/null || { echo "${tool%:*} is missing: install the package ${tool#*:}"; return; }
  done
  # For the pause program; the image's own needs it as well.
  cc -static -x c -o /dev/null - 2>/dev/null <<<'int main(void) { return 0; }' ||
    { echo "cc makes no static program: install the package libc6-dev"; return; }
  unshare --mount --pid --fork --mount-proc true 2>/dev/null ||
    { echo "this user may not make mount and PID namespaces (a container without CAP_SYS_ADMIN?)"; return; }
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    controllers=/sys/fs/cgroup/cgroup.subtree_control
    for group in cpu memory pids; do
      grep -qw "$group" "$controllers" || { echo "+$group" >"$controllers"; } 2>/dev/null ||
        { echo "the cgroup controller $group can't be given to groups (a container without its own cgroup tree?)"; return; }
    done
  else
    for group in cpu cpuset memory pids; do
      [ -d "/sys/fs/cgroup/$group" ] || { echo "there is no cgroup controller $group in /sys/fs/cgroup"; return; }
    done
  fi
  while read -r group; do
    mkdir -p "$group" 2>/dev/null || { echo "no control group can be made: $group"; return; }
    rmdir "$group" 2>/dev/null || true
  done < <(groups)
  # In a network namespace of its own: nothing of it stays.
  unshare --net ip link add "$BRIDGE" type bridge 2>/dev/null ||
    { echo "the kernel gives no network bridge (module bridge, CAP_NET_ADMIN)"; return; }
  [ -e /dev/kmsg ] || { echo "there is no /dev/kmsg, which the kubelet reads"; return; }
}

# ---- one node a machine ---------------------------------------------------------------------------

# The bridge's alias says who has it: a process, and the state directory.
owner() { cat "/sys/class/net/$BRIDGE/ifalias" 2>/dev/null || true; }
is_live() { # PID STARTED STATE
  local pid begun
  same_process "${1:-}" "${2:-}" && return 0
  read -r pid begun 2>/dev/null <"${3:-}/node/machine.pid" && same_process "$pid" "$begun"
}

claim() {
  local pid begun state unnamed=0 until=$((SECONDS + ${AGENTID_NODE_WAIT:-0})) told=0
  until ip link add "$BRIDGE" type bridge 2>/dev/null; do
    read -r pid begun state <<<"$(owner)"
    # For a moment it has no alias yet.
    if [ -z "$pid" ] && ((unnamed++ < 30)); then sleep 0.1; continue; fi
    if ! is_live "$pid" "$begun" "$state"; then
      say "taking away what a node in ${state:-an unknown directory} left"
      sweep
      continue
    fi
    ((SECONDS < until)) || die "another node is up on this machine, and there can be one: its state is in $state"
    ((told++)) || say "another node is up on this machine ($state); waiting for its end"
    sleep 1
  done
  ip link set "$BRIDGE" alias "$$ $(start_time $$) $cp_dir"
}

# ---- what it consists of --------------------------------------------------------------------------

write_configuration() {
  local snapshotter=overlayfs
  mkdir -p "$dir/cni" "$dir/probe/"{lower,upper,work,all}
  # Not on top of another overlay, which a container's own file system may be.
  unshare --mount mount -t overlay overlay "$dir/probe/all" \
    -o "lowerdir=$dir/probe/lower,upperdir=$dir/probe/upper,workdir=$dir/probe/work" 2>/dev/null || snapshotter=native
  rm -rf "$dir/probe"
  cat >"$dir/cni/10-pods.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "$BRIDGE", "hairpinMode": true, "ipam":
 {"type": "host-local", "ranges": [[{"subnet": "$POD_NETWORK", "gateway": "$GATEWAY"}]],
  "routes": [{"dst": "0.0.0.0/0", "gw": "$GATEWAY"}]}}]}
JSON
  cat >"$dir/containerd.toml" <<TOML
version = 3
root = "$dir/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "$socket"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "$snapshotter"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "$PAUSE"
[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE, which containers may lack, nothing may be made dearer to the kernel.
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["$bin"]
  conf_dir = "$dir/cni"
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = "runc"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = "$bin/runc"
  SystemdCgroup = false
TOML
  # syncFrequency is the default, 1 min: by it a mounted Secret's change is seen, here as on users' nodes.
  cat >"$dir/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://$socket
address: $GATEWAY
port: $KUBELET_PORT
healthzPort: 0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $cp_dir/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $pki/kubelet-serving.crt
tlsPrivateKeyFile: $pki/kubelet-serving.key
failCgroupV1: false # machines with cgroup v1 are good enough
cgroupDriver: cgroupfs
cgroupRoot: /$NODE
enforceNodeAllocatable: []
failSwapOn: false
oomScoreAdj: 0
makeIPTablesUtilChains: false
localStorageCapacityIsolation: false
clusterDNS: [$DNS]
clusterDomain: cluster.local
resolvConf: ""
podLogsDir: $dir/pods
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
YAML
  mkdir -p "$pki"
  # Its CA is the control plane's.
  cp "$cp_dir/pki/ca.crt" "$cp_dir/pki/ca.key" "$pki"
  (
    cd "$pki" && pki_leaf kubelet "/O=system:nodes/CN=system:node:$NODE" ca extendedKeyUsage=clientAuth &&
      pki_leaf kubelet-serving "/O=system:nodes/CN=system:node:$NODE" ca \
        "extendedKeyUsage=serverAuth\nsubjectAltName=DNS:$NODE,IP:$GATEWAY"
  ) >"$log/pki.log" 2>&1 || { tail -n 5 "$log/pki.log" >&2; return 1; }
  pki_kubeconfig "$pki" kubelet "$server" >"$dir/kubelet.kubeconfig"
}

# Runs as the first process of the namespaces: ends, and everything with it, when one of the two does.
inside() { # BIN
  local bin=$1 place
  mount --make-rshared /
  for place in "${PLACES[@]}"; do mount -t tmpfs -o mode=755 "$NODE" "$place"; done
  export PATH=$bin:$PATH
  umask 022
  "$bin/containerd" --config "$dir/containerd.toml" >>"$log/containerd.log" 2>&1 &
  until "$bin/ctr" --address "$socket" version >/dev/null 2>&1; do
    kill -0 $! || exit 1
    sleep 0.1
  done
  "$bin/kubelet" --config "$dir/kubelet.yaml" --kubeconfig "$dir/kubelet.kubeconfig" --root-dir "$dir/kubelet" \
    --cert-dir "$dir/kubelet/pki" --hostname-override "$NODE" --node-ip "$GATEWAY" >>"$log/kubelet.log" 2>&1 &
  wait -n
  exit 1
}

containerd_ready() { ctr version; }
node_ready() { kubectl get node "$NODE" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' | grep -q True; }
services_ready() { grep -q "leads to" "$log/services.log"; }

# ---- commands -------------------------------------------------------------------------------------

load() { # the control plane's environment, and where the programs are
  local text
  text=$(cp_sh env) || exit 1
  eval "$text"
  bin=$("$here/get.sh")
  server=$(sed -n 's/^ *server: //p' "$KUBECONFIG")
}

undo() { say "not started; taking down what was"; down >/dev/null 2>&1 || true; sweep; }

up() {
  local why began=$EPOCHREALTIME place
  why=$(obstacle)
  [ -z "$why" ] || die "no node on this machine: $why"
  if alive machine && alive services; then
    cp_sh up "$@"
    load
    say "already up"
    return
  fi
  # Where Unix sockets are, a path has 107 bytes.
  ((${#socket} <= 95)) || die "$dir is too long a path for sockets: set AGENTID_CP_DIR to a shorter one"
  "$here/get.sh" >/dev/null
  [ ! -d "$dir" ] || release
  claim
  trap undo EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  # cp.sh's own flags come first, the last of two counts. The node is reached, for logs and exec, as the administrator.
  local flags=(--service-cluster-ip-range=$SERVICE_NETWORK --kubelet-preferred-address-types=InternalIP
    --kubelet-certificate-authority="$cp_dir/pki/ca.crt" --kubelet-client-certificate="$cp_dir/pki/admin.crt"
    --kubelet-client-key="$cp_dir/pki/admin.key")
  AGENTID_CP_PORT=${AGENTID_CP_PORT:-auto} APISERVER_ARGS="${flags[*]} ${APISERVER_ARGS:-}" cp_sh up "$@"
  load
  mkdir -p "$log"
  ip address add "$GATEWAY/${POD_NETWORK#*/}" dev "$BRIDGE"
  ip link set "$BRIDGE" up
  for setting in "${SYSCTLS[@]}"; do
    if [ -e "/proc/sys/${setting//./\/}" ]; then echo "$setting=$(cat "/proc/sys/${setting//./\/}")"; fi
  done >"$dir/sysctls"
  for place in "${PLACES[@]}"; do
    [ -d "$place" ] || { mkdir -m 755 -p "$place"; echo "$place" >>"$dir/made"; }
  done
  while read -r place; do mkdir -p "$place"; done < <(groups)
  write_configuration || die "the node's certificates could not be made"
  launch services "$log/services.log" "$(python3 -c 'import sys; print(sys.executable)')" "$here/services.py" \
    --api "${server#https://}" --pki "$cp_dir/pki" --device "$BRIDGE" --dns "$DNS"
  launch machine "$log/machine.log" AGENTID_CP_DIR="$cp_dir" unshare --mount --pid --fork --kill-child --mount-proc \
    "$here/node.sh" inside "$bin"
  while [ ! -s "$dir/machine.pid" ] || [ ! -s "$dir/services.pid" ]; do sleep 0.01; done
  await services 20 "the Services' addresses" services_ready
  await machine 60 "containerd (see $log/containerd.log)" containerd_ready
  python3 "$here/images.py" pause "$bin/pause" "$PAUSE" "$dir/pause.tar" >/dev/null
  ctr images import "$dir/pause.tar" >/dev/null
  await machine 60 "the node (see $log/kubelet.log)" node_ready
  trap - EXIT INT TERM
  say "up in $(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }') s, the control plane included: $(kubectl get node "$NODE" -o 'jsonpath={.metadata.name}, {.status.nodeInfo.kubeletVersion}, {.status.nodeInfo.containerRuntimeVersion}')"
}

# Takes away what is outside of the namespaces: of a node whose processes are gone, or are about to be.
sweep() {
  local tries group left=1 port
  for ((tries = 0; tries < 150 && left; tries++)); do
    left=0
    while read -r group; do
      [ -d "$group" ] || continue
      find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || { left=1; sleep 0.1; }
    done < <(groups)
    ((left)) || break
  done
  if ((left)); then say "control groups are left: $(groups | tr '\n' ' ')"; fi
  if [ -e "/sys/class/net/$BRIDGE" ]; then
    # The pods' ends go with their namespaces, which the kernel takes apart in its own time.
    for port in /sys/class/net/"$BRIDGE"/brif/*; do
      [ ! -e "$port" ] || ip link delete "${port##*/}" 2>/dev/null || true
    done
    ip link delete "$BRIDGE" 2>/dev/null || true
  fi
}

# Ends the node alone; cp.sh calls it before it takes the control plane down.
release() {
  local setting pid begun state
  [ -d "$dir" ] || return 0
  stop KILL machine services
  read -r pid begun state <<<"$(owner)"
  # A node of another directory may have come in the place of one that crashed.
  if [ -z "$state" ] || [ "$state" = "$cp_dir" ]; then
    sweep
    if [ -s "$dir/sysctls" ]; then
      while IFS='=' read -r setting state; do echo "$state" >"/proc/sys/${setting//./\/}" || true; done <"$dir/sysctls" 2>/dev/null
    fi
    if [ -s "$dir/made" ]; then
      tac "$dir/made" | while read -r place; do rmdir "$place" 2>/dev/null || true; done
    fi
  fi
  # Nothing is mounted below it here: mounts were in the node's namespace.
  rm -rf --one-file-system "$dir"
}

down() {
  if [ -e "$cp_dir/settings" ]; then cp_sh down; else release; say "there is none in $cp_dir"; fi
}

status() {
  local name pid
  cp_sh status || true
  for name in machine services; do
    if pid=$(pid_of "$name"); then printf '%-24s pid %s\n' "$name" "$pid"; else printf '%-24s down\n' "$name"; fi
  done
  alive machine
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
  check)
    why=$(obstacle)
    [ -z "$why" ] || { echo "$why"; exit 3; }
    ;;
  up) up "$@" ;;
  import)
    load
    for archive in "$@"; do ctr images import "$(realpath "$archive")"; done
    ;;
  down) down ;;
  status) status ;;
  env) cp_sh env ;;
  release) release ;;       # called by cp.sh
  inside) inside "$@" ;;    # called by unshare
  -h | --help | help) usage ;;
  *) usage >&2; exit 2 ;;
esac
