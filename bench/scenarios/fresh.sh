# SPDX-License-Identifier: Apache-2.0
#
# Fresh work: a guest that takes memory after its restore, which its image knows as zeros or which it has given back.
# Beside the kernel alone, which gives the memory without any server.

fresh_servers=(kernel serve spin)
[ -z "$before" ] || fresh_servers+=(before)

fresh_socket() {
    case $1 in
    serve | before) echo "$work/fresh-$1.sockets/fresh.sock" ;;
    *) echo "$work/fresh-$1.sock" ;;
    esac
}

start_fresh_servers() {
    truncate -s "$fresh_size" "$work/fresh-memory"
    pack_image "$work/fresh-store" fresh "$work/fresh-memory"
    start_serve fresh-serve "$work/fresh-store"
    if [ -n "$before" ]; then
        faultline=$before pack_image "$work/fresh-store.before" fresh "$work/fresh-memory"
        faultline=$before start_serve fresh-before "$work/fresh-store.before"
    fi
    start_server fresh-spin "$bare_handler" --spin 50 "$work/fresh-spin.sock" "$work/fresh-memory"
}

# fresh_counts SERVER: the faults that it has read, and the zeros that came ahead, of use and in all.
fresh_counts() {
    case $1 in
    serve | before)
        "$faultline" status --control "$work/fresh-$1.control" --json |
            jq -c '[.faults.read, (.pages.zeroed_ahead // 0), (.pages.zeroed_ahead_used // 0)]'
        ;;
    *) echo '[0,0,0]' ;;
    esac
}

# run_fresh SERVER ORDER OPTION...: the figures are read while the VM is there, so that nothing of it is missing.
run_fresh() {
    local server=$1 order=$2 socket=() counts
    [ "$server" = kernel ] || socket=(--socket "$(fresh_socket "$server")")
    counts=$(fresh_counts "$server")
    "$fresh_work" "${socket[@]}" --order "$order" "${@:3}" "$fresh_size" </dev/null >"$work/fresh-run" ||
        die "$server: fresh work failed"
    within 10 fresh_has_gone "$server" || die "$server still has the VM"
    jq -c --argjson before "$counts" --argjson after "$(fresh_counts "$server")" \
        '. + {faults: ($after[0] - $before[0]), ahead: ($after[1] - $before[1]), used: ($after[2] - $before[2])}' \
        "$work/fresh-run" >"$work/run"
}

fresh_has_gone() {
    case $1 in
    serve | before) [ "$("$faultline" status --control "$work/fresh-$1.control" --json | jq .vms)" = 0 ] ;;
    esac
}

measure_fresh() {
    local round server what options
    start_fresh_servers
    for ((round = 1; round <= replay_rounds; round++)); do
        await_quiet
        say "fresh: round $round of $replay_rounds (idle machine: $busy_percent % of a CPU)"
        for what in up down blocks blocks-removed sparse; do
            options=()
            [ $what != blocks-removed ] || options=(--removed)
            for server in "${fresh_servers[@]}"; do
                run_fresh "$server" "${what%-removed}" "${options[@]}"
                record '{part: "fresh", scenario: $what, server: $server, round: $round} + .' \
                    --arg what "$what" --arg server "$server" --argjson round "$round" <"$work/run"
            done
        done
    done
    for server in "${fresh_servers[@]}"; do
        [ "$server" = kernel ] || stop_server "fresh-$server"
    done
}
