# SPDX-License-Identifier: Apache-2.0
#
# What a fault costs, counted and not timed: system calls (strace counts them), reads (the kernel counts them without
# disturbing), instructions in user space (callgrind counts them). `faultline handler` has the engine's fault path in
# one process, without a keeper. Its frames are in memory.

cost_servers=(handler bare spin drain example)

cost_command() {
    case $1 in
    handler) printf '%s\n' "$faultline" handler "${@:2}" ;;
    bare) printf '%s\n' "$bare_handler" ;;
    spin) printf '%s\n' "$bare_handler" --spin 50 ;;
    drain) printf '%s\n' "$drain_handler" ;;
    example) printf '%s\n' "$example_handler" ;;
    esac
}

# start_cost_server NAME SERVER BEFORE...: starts SERVER with BEFORE in front of its command, and has a VM touch
# everything, so that its frames are in memory.
start_cost_server() {
    local name=$1 server=$2 command options=()
    shift 2
    # The server must not spin, or instructions that only wait would be counted.
    [ $# -eq 0 ] || options=(--spin 0)
    mapfile -t command < <(cost_command "$server" "${options[@]}")
    rm -f "$work/$name.sock"
    start_server "$name" "$@" "${command[@]}" "$work/$name.sock" "$work/cost-memory"
    "$loadgen" --socket "$work/$name.sock" --memory "$cost_memory" --order sequential --file "$work/cost-memory" \
        --verify 1G >"$work/warm" || die "$name does not serve what is in the file"
}

# load_cost NAME VMS THREADS TOUCH: each VM touches TOUCH pages; the report goes to $work/run.
load_cost() {
    "$loadgen" --socket "$work/$1.sock" --vms "$2" --threads "$3" --touch "$4" --memory "$cost_memory" \
        --timeout 300 >"$work/run" || die "$1 failed with $2 VMs"
}

record_cost() {
    record '{part: "cost", scenario: $scenario, server: $server, counted: $counted, faults: $faults, counts: .}' \
        --arg scenario "$1" --arg server "$2" --arg counted "$3" --argjson faults "$4"
}

faults_of_run() {
    jq .faults "$work/run"
}

# kernel_counts PID: prints how many reads the process has made, in all its threads.
kernel_counts() {
    awk '$1 == "syscr:" { reads = $2 } END { print reads + 0 }' "/proc/$1/io"
}

count_in_kernel() {
    local scenario=$1 server=$2 vms=$3 threads=$4 touch=$5 before after
    start_cost_server "$server" "$server"
    before=$(kernel_counts "${server_pid[$server]}")
    load_cost "$server" "$vms" "$threads" "$touch"
    after=$(kernel_counts "${server_pid[$server]}")
    stop_server "$server"
    jq -n '{reads: ($after - $before)}' --argjson before "$before" --argjson after "$after" |
        record_cost "$scenario" "$server" kernel "$(faults_of_run)"
}

all_traced() {
    ! grep -h '^TracerPid:' "/proc/$1/task"/*/status | grep -qw 0
}

# Sets `traced_faults`, and writes the calls of the server in a run of TOUCH pages of each VM to $work/calls.TOUCH.
# False if it cannot be traced.
strace_run() {
    local server=$1 vms=$2 threads=$3 touch=$4 strace_pid
    start_cost_server "$server" "$server"
    strace -f -c -o "$work/strace" -p "${server_pid[$server]}" 2>"$work/strace.log" &
    strace_pid=$!
    if ! within 30 all_traced "${server_pid[$server]}"; then
        kill $strace_pid 2>/dev/null || true
        wait $strace_pid 2>/dev/null || true
        stop_server "$server"
        say "SKIPPED: system calls of $server; strace: $(tail -n 1 "$work/strace.log")"
        return 1
    fi
    load_cost "$server" "$vms" "$threads" "$touch"
    kill -INT $strace_pid
    wait $strace_pid || true
    stop_server "$server"
    traced_faults=$(faults_of_run)
    # Columns: % time, seconds, usecs/call, calls, errors (often empty), name.
    awk '$1 ~ /^[0-9.]+$/ && $NF != "total" { print $NF, $4 }' "$work/strace" |
        jq -R -n '[inputs | split(" ") | {(.[0]): (.[1] | tonumber)}] | add // {}' >"$work/calls.$touch"
}

# strace slows calls down so much that the server batches more and spins less than in a run that is timed. As with
# instructions, the difference of two runs is the faults': many calls of 200 VMs are those of their attaches.
count_calls() {
    local scenario=$1 server=$2 vms=$3 threads=$4 touch=$5 few_faults
    strace_run "$server" "$vms" "$threads" $((touch / 4)) || return 0
    few_faults=$traced_faults
    strace_run "$server" "$vms" "$threads" "$touch" || return 0
    jq --slurpfile few "$work/calls.$((touch / 4))" \
        'with_entries(.key as $name | .value -= ($few[0][$name] // 0) | select(.value > 0))' "$work/calls.$touch" |
        record_cost "$scenario" "$server" strace $((traced_faults - few_faults))
}

# Sets `total` to all instructions of a server that has read its frames and then served TOUCH pages of each VM.
callgrind_total() {
    local server=$1 vms=$2 threads=$3 touch=$4
    rm -f "$work/callgrind"
    start_cost_server "$server" "$server" env LD_PRELOAD="$build/bench/old_kernel.so" \
        valgrind --quiet --tool=callgrind --callgrind-out-file="$work/callgrind"
    load_cost "$server" "$vms" "$threads" "$touch"
    stop_server "$server"
    total=$(awk '$1 == "totals:" { total = $2 } END { printf "%.0f\n", total }' "$work/callgrind")
}

# Records the difference of two runs, one with few faults and one with many. Both start, attach, read frames and end, so
# the difference is the faults'.
count_instructions() {
    local scenario=$1 server=$2 vms=$3 threads=$4 touch=$5 few many few_faults
    callgrind_total "$server" "$vms" "$threads" $((touch / 4))
    few=$total few_faults=$(faults_of_run)
    callgrind_total "$server" "$vms" "$threads" "$touch"
    many=$total
    if [ "$few" = 0 ] || [ "$many" = 0 ]; then
        say "SKIPPED: instructions of $server; callgrind left no count"
        return 0
    fi
    jq -n '{instructions: ($many - $few)}' --argjson few "$few" --argjson many "$many" |
        record_cost "$scenario" "$server" callgrind $(($(faults_of_run) - few_faults))
}

measure_cost() {
    local scenario vms threads touch server can_trace=1 can_grind=1 grind_most=32
    command -v strace >/dev/null || { can_trace=0; say "SKIPPED: system calls; strace is not installed"; }
    command -v valgrind >/dev/null || { can_grind=0; say "SKIPPED: instructions; valgrind is not installed"; }
    if grep -qE '__(asan|tsan)_init' "$faultline"; then
        can_grind=0
        say "SKIPPED: instructions; this build has a sanitizer in it"
    fi
    "$memfile" "$cost_memory" "$work/cost-memory"
    while read -r scenario vms threads touch; do
        [ -n "$scenario" ] || continue
        say "cost: $scenario"
        for server in "${cost_servers[@]}"; do
            count_in_kernel "$scenario" "$server" "$vms" "$threads" "$touch"
            [ $can_trace = 0 ] || count_calls "$scenario" "$server" "$vms" "$threads" "$touch"
            # The handler that spins is left out: but for spinning it is the one that blocks.
            # Nor are many VMs: valgrind runs one thread at a time, and they would not come to their start.
            [ $can_grind = 0 ] || [ "$server" = spin ] || [ "$vms" -gt "$grind_most" ] ||
                count_instructions "$scenario" "$server" "$vms" "$threads" "$touch"
        done
    done <<<"$cost_scenarios"
}
