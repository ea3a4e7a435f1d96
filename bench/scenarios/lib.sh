# SPDX-License-Identifier: Apache-2.0
#
# What the parts of bench/run share: a directory to work in, servers, and a quiet machine. give_back removes and
# stops everything at the end.

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
    give_back_huge_pages
    rm -rf "$work"
}

give_back_huge_pages() {
    [ -z "$huge_pages_before" ] || echo "$huge_pages_before" >/proc/sys/vm/nr_hugepages
    huge_pages_before=
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

# start_server NAME COMMAND...: starts it in the background and waits until its log says that it is ready.
start_server() {
    local name=$1
    shift
    : >"$work/$name.log" # server_ready may read it before the server has opened it
    "$@" >"$work/$name.out" 2>"$work/$name.log" &
    server_pid[$name]=$!
    within 60 server_ready "$name" || die "$name did not start: $(tail -n 3 "$work/$name.log")"
}

server_ready() {
    kill -0 "${server_pid[$1]}" 2>/dev/null || die "$1 ended: $(tail -n 3 "$work/$1.log")"
    grep -q 'event=ready' "$work/$1.log"
}

# stop_server NAME: stops it by SIGTERM. Kills it if it does not end, as no server may outlive the run.
stop_server() {
    local pid=${server_pid[$1]}
    unset "server_pid[$1]"
    kill -TERM "$pid" 2>/dev/null || true
    if ! within 60 has_ended "$pid"; then
        say "$1 did not end when it was told to"
        kill -KILL "$pid" 2>/dev/null || true
    fi
    wait "$pid" 2>/dev/null || true
}

has_ended() {
    ! kill -0 "$1" 2>/dev/null
}

# server_pids NAME: prints the pids of the server and of its children, one a line.
server_pids() {
    local pid=${server_pid[$1]}
    echo "$pid"
    pgrep -P "$pid" || true
}

# has_verb VERB: true if this build of faultline has it. The parts leave out what a build lacks, and say so.
has_verb() {
    "$faultline" "$1" --help >/dev/null 2>&1
}

# has_replay: true if the engine can install a VM's recorded pages before the VM touches them.
has_replay() {
    has_verb record && has_verb trace
}

# pack_image STORE NAME FILE: makes an image.
pack_image() {
    "$faultline" pack --store "$1" --name "$2" "$3" >/dev/null 2>"$work/pack.log" ||
        die "pack failed: $(tail -n 3 "$work/pack.log")"
}

# start_serve NAME STORE [OPTION...]: starts `faultline serve` with sockets in $work/NAME.sockets.
start_serve() {
    mkdir -p "$work/$1.sockets"
    start_server "$1" "$faultline" serve --store "$2" --sockets "$work/$1.sockets" --control "$work/$1.control" \
        --cache "$serve_cache" "${@:3}"
}

# load_server SERVER LOADGEN-ARGUMENT...: runs loadgen, whose report goes to $work/run with the CPU time of SERVER's
# processes. SERVER is - if there is no server.
load_server() {
    local pid arguments=()
    if [ "$1" != - ]; then
        for pid in $(server_pids "$1"); do
            arguments+=(--server-pid "$pid")
        done
    fi
    shift
    "$loadgen" "${arguments[@]}" "$@" >"$work/run"
}

# True if other programs used less than a fifth of a CPU meanwhile. The kernel counts hundredths of a second: with a
# lower limit short runs would be thrown away by chance.
was_alone() {
    jq -e '(.others_cpu_percent // 0) < 20' "$work/run" >/dev/null
}

# alone COMMAND...: runs a command that leaves $work/run. If other programs disturbed the run, it is thrown away and
# made again when the machine is quiet, up to six times. If all runs were disturbed the last one is kept, and the
# report leaves it out. Sets `tries`.
alone() {
    tries=1
    "$@"
    until was_alone || [ "$wait_quiet" = 0 ] || [ $tries -ge 6 ]; do
        await_quiet
        "$@"
        tries=$((tries + 1))
    done
}

# cold FILE...: empties the page cache of the files. False if something stays.
cold() {
    "$evict" "$@" 2>"$work/evict.log"
}

# cold_store STORE: the same for all files of a store. No server may have it open.
cold_store() {
    find "$1" -type f -print0 >"$work/files"
    xargs -0 "$evict" <"$work/files" 2>"$work/evict.log"
}

# record_trace SERVER STORE IMAGE BYTES ORDER: records a VM that touches pages in this order, and keeps the trace.
record_trace() {
    local server=$1 store=$2 image=$3 bytes order=$5 pid
    bytes=$(numfmt --from=iec "$4")
    "$faultline" record --store "$store" --control "$work/$server.control" --runs 1 --window 60s --share 100 --timeout 120 \
        "$image" >"$work/record.log" 2>&1 &
    pid=$!
    within 30 record_waits "$server" "$image" "$pid" || die "record did not begin: $(tail -n 3 "$work/record.log")"
    # The recording ends when the VM does.
    "$loadgen" --socket "$work/$server.sockets/$image.sock" --memory "$bytes" --order "$order" --restore >"$work/trained" ||
        die "no VM could be recorded"
    wait $pid || die "record failed: $(tail -n 3 "$work/record.log")"
    "$faultline" trace show --store "$store" --json "$image" >"$work/trace" || die "there is no trace of $image"
    # Checks the trace, as a wrong one would make the figures wrong. loadgen leaves out the last page of the memory.
    jq -r '.order[]' "$work/trace" | sort | cmp -s - <(awk -v last=$((bytes / 4096 - 1)) '$1 != last { print $1 }' "$order" | sort) ||
        die "$image: what was recorded is not what was touched"
}

record_waits() {
    kill -0 "$3" 2>/dev/null || die "record ended: $(tail -n 3 "$work/record.log")"
    grep -q "event=record image=$2 " "$work/$1.log"
}

# Prints the hundredths of a second that all CPUs together were busy or stolen since boot.
busy_ticks() {
    awk '$1 == "cpu" { print $2 + $3 + $4 + $7 + $8 + $9 }' /proc/stat
}

# Sets busy_percent to how busy the machine is while nothing is measured; 100 is one CPU. Waits up to a minute until
# it is below 5. A server that spins when it has nothing to do shows up here, too.
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

# reserve_huge_pages N: true if there are N huge pages then. The end of the run sets the number of before.
reserve_huge_pages() {
    local before
    before=$(cat /proc/sys/vm/nr_hugepages)
    [ "$before" -lt "$1" ] || return 0
    huge_pages_before=${huge_pages_before:-$before}
    echo "$1" >/proc/sys/vm/nr_hugepages 2>/dev/null || true
    [ "$(cat /proc/sys/vm/nr_hugepages)" -ge "$1" ]
}

# record FILTER [JQ-ARGUMENT...]: adds one record, which the jq filter makes from standard input.
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
