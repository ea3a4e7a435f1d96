# SPDX-License-Identifier: Apache-2.0
#
# The fault path: every scenario against every server, in rounds in which the servers take turns. If the machine becomes
# slower or faster meanwhile, it does so for all of them.

# `before` is another build of faultline (--before).
servers=(serve handler bare spin drain example)
[ -z "$before" ] || servers+=(before)

fault_socket() {
    case $1 in
    serve | before) echo "$work/$1.sockets/bench.sock" ;;
    *) echo "$work/$1.sock" ;;
    esac
}

start_fault_servers() {
    "$memfile" "$image_size" "$work/memory"
    pack_image "$work/store" bench "$work/memory"
    start_serve serve "$work/store"
    if [ -n "$before" ]; then
        faultline=$before pack_image "$work/store.before" bench "$work/memory"
        faultline=$before start_serve before "$work/store.before"
    fi
    start_server handler "$faultline" handler "$work/handler.sock" "$work/memory"
    start_server bare "$bare_handler" "$work/bare.sock" "$work/memory"
    start_server spin "$bare_handler" --spin 50 "$work/spin.sock" "$work/memory"
    start_server drain "$drain_handler" "$work/drain.sock" "$work/memory"
    start_server example "$example_handler" "$work/example.sock" "$work/memory"
}

# Runs a VM that is not measured: afterwards every frame is in memory, and every page was right.
warm_fault_server() {
    "$loadgen" --socket "$(fault_socket "$1")" --memory "$image_size" --order sequential \
        --file "$work/memory" --verify 1G >"$work/warm" || die "$1 does not serve what is in the file"
}

run_loadgen() {
    local scenario=$1 vms=$2 threads=$3 memory=$4 page_size=$5 order=$6 server=$7 round=$8
    load_server "$server" --socket "$(fault_socket "$server")" --vms "$vms" --threads "$threads" --memory "$memory" \
        --page-size "$page_size" --order "$order" --seed "$round" --file "$work/memory" --verify 64 ||
        die "$server failed in $scenario, round $round"
}

# A busy host: on each CPU something computes at normal priority. What it uses disturbs nothing, as it is meant to.
measure_busy_run() {
    local loops=() i
    for ((i = 0; i < $(nproc); i++)); do
        while :; do :; done &
        loops+=($!)
    done
    run_loadgen "$@"
    kill "${loops[@]}"
    wait "${loops[@]}" 2>/dev/null || true
    jq -c 'del(.others_cpu_percent)' "$work/run" >"$work/run.busy"
    mv "$work/run.busy" "$work/run"
    tries=1
}

measure_fault_run() {
    local scenario=$1 server=$7 round=$8
    case $scenario in
    *-busy) measure_busy_run "$@" ;;
    *) alone run_loadgen "$@" ;;
    esac
    record '{part: "faults", scenario: $scenario, server: $server, round: $round, tries: $tries} + .' \
        --arg scenario "$scenario" --arg server "$server" --argjson round "$round" --argjson tries $tries <"$work/run"
}

measure_fault_round() {
    local round=$1 line first i
    while read -r -a line; do
        [ ${#line[@]} -gt 0 ] || continue
        if [ "${line[4]}" = 2M ] && [ "$have_huge_pages" = 0 ]; then
            continue
        fi
        # Each round begins with another server, so that no server is always the first.
        first=$((round % ${#servers[@]}))
        for ((i = 0; i < ${#servers[@]}; i++)); do
            measure_fault_run "${line[@]}" "${servers[(first + i) % ${#servers[@]}]}" "$round"
        done
    done <<<"$scenarios"
}

measure_faults() {
    local server round
    have_huge_pages=1
    reserve_huge_pages "$huge_pages" || have_huge_pages=0
    [ $have_huge_pages = 1 ] || say "SKIPPED: 2 MiB pages; $huge_pages huge pages cannot be reserved"
    start_fault_servers
    for server in "${servers[@]}"; do
        warm_fault_server "$server"
    done
    for ((round = 1; round <= rounds; round++)); do
        await_quiet
        say "faults: round $round of $rounds (idle machine: $busy_percent % of a CPU)"
        measure_fault_round "$round"
    done
    for server in "${servers[@]}"; do
        stop_server "$server"
    done
}
