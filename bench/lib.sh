# SPDX-License-Identifier: Apache-2.0
#
# What the parts of bench/run share: a place to work that is given back, servers, and a quiet machine.

declare -A server_pid=()
huge_pages_before=

prepare_work() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/faultline-bench.XXXXXX")
    trap give_back EXIT
    trap 'exit 130' INT TERM
    : >"$work/records"
}

give_back() {
    local name
    for name in "${!server_pid[@]}"; do
        stop_server "$name"
    done
    [ -z "$huge_pages_before" ] || echo "$huge_pages_before" >/proc/sys/vm/nr_hugepages
    rm -rf "$work"
}

say() {
    printf 'bench/run: %s\n' "$*" >&2
}

die() {
    say "$@"
    exit 1
}

# within SECONDS COMMAND...: repeats the command until it succeeds; fails when the time is over.
within() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $until ] || return 1
        sleep 0.02
    done
}

# start_server NAME COMMAND...: in the background, until its log says that it is ready.
start_server() {
    local name=$1
    shift
    : >"$work/$name.log" # it is looked into before the server may have opened it
    "$@" >"$work/$name.out" 2>"$work/$name.log" &
    server_pid[$name]=$!
    within 60 server_ready "$name" || die "$name did not start: $(tail -n 3 "$work/$name.log")"
}

server_ready() {
    kill -0 "${server_pid[$1]}" 2>/dev/null || die "$1 ended: $(tail -n 3 "$work/$1.log")"
    grep -q 'event=ready' "$work/$1.log"
}

stop_server() {
    local pid=${server_pid[$1]}
    unset "server_pid[$1]"
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

# server_pids NAME: the server and the processes it has started, one a line.
server_pids() {
    local pid=${server_pid[$1]}
    echo "$pid"
    pgrep -P "$pid" || true
}

# Hundredths of a second that all CPUs together were busy or stolen since boot.
busy_ticks() {
    awk '$1 == "cpu" { print $2 + $3 + $4 + $7 + $8 + $9 }' /proc/stat
}

# Sets busy_percent to what the machine does when nothing is measured, 100 being one CPU. Waits up to a
# minute for it to be below 5. Servers that do not rest when they have nothing to do show up here too.
await_quiet() {
    local before until=$((SECONDS + 60))
    while :; do
        before=$(busy_ticks)
        sleep 0.5
        busy_percent=$((($(busy_ticks) - before) * 2))
        if [ $busy_percent -lt 5 ] || [ "$wait_quiet" = 0 ] || [ $SECONDS -ge $until ]; then
            return 0
        fi
    done
}

# reserve_huge_pages N: true if there are so many. What was reserved before is set again at the end.
reserve_huge_pages() {
    local before
    before=$(cat /proc/sys/vm/nr_hugepages)
    [ "$before" -lt "$1" ] || return 0
    huge_pages_before=${huge_pages_before:-$before}
    echo "$1" >/proc/sys/vm/nr_hugepages 2>/dev/null || true
    [ "$(cat /proc/sys/vm/nr_hugepages)" -ge "$1" ]
}

# record FILTER [JQ-ARGUMENT...]: adds one record, made by a jq filter from standard input.
record() {
    local filter=$1
    shift
    jq -c "$@" "$filter" >>"$work/records"
}

describe_machine() {
    jq -n --arg date "$(date -u +%F)" --arg linux "$(uname -r | cut -d. -f1,2)" --arg cpus "$(nproc)" \
        --arg kib "$(awk '$1 == "MemTotal:" { print $2 }' /proc/meminfo)" \
        --arg version "$("$faultline" --version)" \
        '{date: $date, linux: $linux, cpus: ($cpus | tonumber),
          memory_gib: (($kib | tonumber) / 1048576 | round), version: $version}'
}
