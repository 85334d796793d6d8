# shellcheck shell=bash disable=SC2154 # dir and log are cp.sh's
# Background processes known by NAME: started, recognised, stopped. Sourced by cp.sh, which sets `dir`
# (a process is recorded in $dir/NAME.pid) and `log` (its output is $log/NAME.log) and has say().
#
# Invariant: a PID is signalled only while the process behind it has the start time that was recorded,
# so never one that got the number later.

# The start time of a process in clock ticks since boot: with the PID, its identity. Field 22 of
# stat, counted after the command name, which may itself hold spaces and parentheses. A zombie counts
# as gone, but only when its last thread is: until then it holds its ports.
start_time() {
  local stat fields threads
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  read -ra fields <<<"${stat##*) }"
  threads=("/proc/$1/task/"*)
  if [ "${fields[0]}" = Z ] && [ ${#threads[@]} -le 1 ]; then return 1; fi
  echo "${fields[19]}"
}

same_process() { [ -n "$1" ] && [ "$(start_time "$1" || true)" = "$2" ]; }

pid_of() { # NAME -> its PID, if the process recorded in NAME.pid is still that process
  local pid started
  read -r pid started 2>/dev/null <"$dir/$1.pid" || return 1
  same_process "$pid" "$started" && echo "$pid"
}

alive() { pid_of "$1" >/dev/null; }

# launch NAME LOG COMMAND...: in a session of its own, so that a Ctrl-C or hang-up of the caller does
# not reach it; without the caller's file descriptors (a held pipe would make the caller's reader wait
# for us, a held lock would never be released) or environment (etcd reads ETCD_*, Go proxies).
launch() {
  local name=$1 out=$2
  shift 2
  (
    self=$BASHPID # taken here: inside a command substitution it is the substitution's own
    for fd in /proc/self/fd/*; do
      fd=${fd##*/}
      ((fd <= 2)) || eval "exec $fd>&-"
    done
    cd "$dir" || exit
    printf '%s %s\n' "$self" "$(start_time "$self")" >"$dir/$name.pid"
    exec setsid env -i PATH="$PATH" HOME="$dir" "$@" </dev/null >>"$out" 2>&1
  ) &
  disown # or bash reports its end
}

# stop SIGNAL NAME...: signals all, waits for all; SIGKILL after 15 s.
stop() {
  local signal=$1 name pid tries=0 left
  shift
  for name in "$@"; do if pid=$(pid_of "$name"); then kill -s "$signal" "$pid" 2>/dev/null || true; fi; done
  while :; do
    left=()
    for name in "$@"; do if alive "$name"; then left+=("$name"); else rm -f "$dir/$name.pid"; fi; done
    [ ${#left[@]} -gt 0 ] || return 0
    tries=$((tries + 1))
    if ((tries == 300)); then
      say "${left[*]}: still there after 15 s, killed"
      for name in "${left[@]}"; do if pid=$(pid_of "$name"); then kill -KILL "$pid" 2>/dev/null || true; fi; done
    fi
    sleep 0.05
  done
}

# await NAME SECONDS WHAT COMMAND...: until the command succeeds while the component lives.
await() {
  local name=$1 deadline=$((SECONDS + $2)) what=$3
  shift 3
  until "$@" >/dev/null 2>&1; do
    if ! alive "$name"; then
      say "$name ended while we waited for $what; the end of $log/$name.log:"
      tail -n 5 "$log/$name.log" >&2
      return 1
    fi
    if ((SECONDS >= deadline)); then
      say "$what: not after $2 s; the end of $log/$name.log:"
      tail -n 5 "$log/$name.log" >&2
      return 1
    fi
    sleep 0.05
  done
}
