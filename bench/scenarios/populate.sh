# SPDX-License-Identifier: Apache-2.0
#
# All memory of a VM at its first fault: `faultline handler --populate`, of a file that is in the page cache, beside one
# UFFDIO_COPY of everything, which is what Firecracker's example does. Each round has a server that has just begun, and
# a second VM of the same server.

populate_servers=(handler)
[ -z "$before" ] || populate_servers+=(before)

populate_command() {
    case $1 in
    handler) echo "$faultline" ;;
    before) echo "$before" ;;
    esac
}

# populate_vm SERVER N: the Nth VM of the server; prints how many microseconds it took to fill it.
populate_vm() {
    local name=populate-$1
    "$loadgen" --socket "$work/$name.sock" --memory "$populate_size" --touch 1 --warm "$populate_size" --hold \
        < <(within 60 has_filled "$name" "$2") >"$work/populate-run" || die "$1: no VM"
    grep -o "event=filled vm=$2 .*" "$work/$name.log" | sed 's/.* us=\([0-9]*\).*/\1/'
}

has_filled() {
    grep -q "event=filled vm=$2 " "$work/$1.log"
}

record_populate() {
    jq -nc '{part: "populate", server: $server, vm: $vm, round: $round, bytes: $bytes, seconds: $seconds}' \
        --arg server "$1" --arg vm "$2" --argjson round "$3" --argjson seconds "$4" \
        --argjson bytes "$(numfmt --from=iec "$populate_size")" >>"$work/records"
}

populate_round() {
    local server vm us
    "$bulk_copy" 4K "$populate_size" "$populate_size" >"$work/run" || die "bulk copy failed"
    record_populate bulk "-" "$1" "$(jq .seconds "$work/run")"
    for server in "${populate_servers[@]}"; do
        rm -f "$work/populate-$server.sock"
        start_server "populate-$server" "$(populate_command "$server")" handler --populate "$work/populate-$server.sock" \
            "$work/populate-memory"
        for vm in 1 2; do
            us=$(populate_vm "$server" $vm)
            record_populate "$server" "$([ $vm = 1 ] && echo first || echo second)" "$1" "$(jq -n "$us / 1e6")"
        done
        stop_server "populate-$server"
    done
}

measure_populate() {
    local round
    "$memfile" "$populate_size" "$work/populate-memory"
    cat "$work/populate-memory" >/dev/null
    for ((round = 1; round <= replay_rounds; round++)); do
        await_quiet
        say "populate: round $round of $replay_rounds (idle machine: $busy_percent % of a CPU)"
        populate_round "$round"
    done
}
