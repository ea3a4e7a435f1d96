# SPDX-License-Identifier: Apache-2.0
#
# Real guests touched their memory in certain orders (bench/run orders). Here VMs touch it again in these orders: one
# VM, and many that are restored at one moment. Each snapshot was restored twice. The first restore's order is the
# trace, and the second's is what is touched, so that no trace knows the future.

# snapshot, VMs, touches of each VM at most, how, servers. How: `warm` (frames and files are in memory), `cold` (the
# server has just started, and reads from the disk), `paced` (warm, and no touch comes before its recorded time).
recorded_scenarios='
fill   1   1G warm  replay lazy example bare spin cache
fill   1   1G cold  replay lazy cache
fill   1   1G paced replay lazy example cache
fill   8   1G warm  replay lazy example bare spin cache
sort   1   1G warm  replay lazy example bare spin cache
sort   1   1G cold  replay lazy cache
sort   8   1G warm  replay lazy example bare spin cache
sort  32   1G warm  replay lazy example bare spin cache
gzip   1   1G warm  replay lazy example bare spin cache
gzip   1   1G cold  replay lazy cache
gzip  32   1G warm  replay lazy example bare spin cache
gzip 500 1000 warm  replay lazy example bare cache
'

# Makes up snapshots as bench/run orders leaves them, for a run that only shows that all of this works.
make_up_guests() {
    local name step=3
    recorded_snapshots=(fill gzip)
    recorded_scenarios='
fill 1 1G warm  replay lazy example bare spin cache
fill 1 1G cold  replay lazy cache
fill 1 1G paced replay lazy example cache
gzip 4 50 warm  replay lazy example bare cache
'
    for name in "${recorded_snapshots[@]}"; do
        mkdir -p "$work/guests/$name"
        "$memfile" 4M "$work/guests/$name/ram" 25
        awk -v step=$step 'BEGIN { for (page = 0; page < 1000; page += step) print page, int(page / 10) }' \
            >"$work/guests/$name/order.1"
        awk 'NR % 50 != 7' "$work/guests/$name/order.1" >"$work/guests/$name/order.2"
        step=$((step + 2))
    done
    guests=$work/guests
}

prepare_guests() {
    if [ $tiny = 1 ]; then
        make_up_guests
        return
    fi
    say "recorded: guests in $guests (made if they are not there: minutes)"
    "$bench/scenarios/orders" --build "$build" "$guests" >"$work/snapshots" || die "there are no guests to measure"
    mapfile -t recorded_snapshots <"$work/snapshots"
}

# Makes two stores of the same images, one of them with traces.
pack_guests() {
    local name
    for name in "${recorded_snapshots[@]}"; do
        pack_image "$work/lazy-store" "$name" "$guests/$name/ram"
        [ $with_replay = 0 ] || pack_image "$work/replay-store" "$name" "$guests/$name/ram"
    done
    [ $with_replay = 1 ] || return 0
    start_serve replay "$work/replay-store"
    for name in "${recorded_snapshots[@]}"; do
        record_trace replay "$work/replay-store" "$name" "$(stat -c %s "$guests/$name/ram")" "$guests/$name/order.1"
    done
    stop_server replay
}

start_recorded_servers() {
    local ram=$guests/$1/ram
    start_server bare "$bare_handler" "$work/bare.sock" "$ram"
    start_server spin "$bare_handler" --spin 50 "$work/spin.sock" "$ram"
    start_server example "$example_handler" "$work/example.sock" "$ram"
    start_serve lazy "$work/lazy-store"
    [ $with_replay = 0 ] || start_serve replay "$work/replay-store"
}

stop_recorded_servers() {
    local server
    for server in bare spin example lazy replay; do
        [ -z "${server_pid[$server]:-}" ] || stop_server $server
    done
}

# recorded_memory SERVER SNAPSHOT: prints the option by which loadgen's VMs get their memory. The VMs without a server
# map a copy of the file, as the handlers keep the file itself in the page cache.
recorded_memory() {
    case $1 in
    cache) printf '%s\n' --map "$work/$2.raw" ;;
    lazy | replay) printf '%s\n' --socket "$work/$1.sockets/$2.sock" ;;
    *) printf '%s\n' --socket "$work/$1.sock" ;;
    esac
}

run_recorded() {
    local snapshot=$1 vms=$2 touch=$3 how=$4 server=$5 measured=- memory paced=none
    mapfile -t memory < <(recorded_memory "$server" "$snapshot")
    [ "$server" = cache ] || measured=$server
    [ "$how" != paced ] || paced=recorded
    [ "$how" != cold ] || make_cold "$snapshot" "$server"
    load_server "$measured" "${memory[@]}" --vms "$vms" --touch "$touch" --memory "$(stat -c %s "$guests/$snapshot/ram")" \
        --order "$guests/$snapshot/order.2" --pace $paced --restore --file "$guests/$snapshot/ram" --verify 64 ||
        die "$server failed with $vms VMs of $snapshot"
}

# Empties the page cache of what the VMs will need. The server is stopped meanwhile, as it may map its files.
make_cold() {
    local snapshot=$1 server=$2
    if [ "$server" = cache ]; then
        cold "$work/$snapshot.raw" || die "still in the page cache: $(cat "$work/evict.log")"
        return
    fi
    stop_server "$server"
    cold_store "$work/$server-store" || die "still in the page cache: $(cat "$work/evict.log")"
    start_serve "$server" "$work/$server-store"
}

# Runs a VM that is not measured: afterwards every frame or file page is in memory, and every page was right.
warm_recorded() {
    local snapshot=$1 server=$2 memory
    mapfile -t memory < <(recorded_memory "$server" "$snapshot")
    "$loadgen" "${memory[@]}" --memory "$(stat -c %s "$guests/$snapshot/ram")" --order sequential \
        --file "$guests/$snapshot/ram" --verify 1G >"$work/warm" || die "$server does not serve what is in $snapshot"
}

measure_recorded_run() {
    local snapshot=$1 vms=$2 how=$4 server=$5 round=$6
    [ "$server" != replay ] || [ $with_replay = 1 ] || return 0
    [ "$how" != cold ] || [ $can_be_cold = 1 ] || return 0
    [ "$how" = cold ] || warm_if_cooled "$snapshot" "$server"
    alone run_recorded "$@"
    record '{part: "recorded", snapshot: $snapshot, how: $how, server: $server, round: $round, tries: $tries} + .' \
        --arg snapshot "$snapshot" --arg how "$how" --arg server "$server" --argjson round "$round" \
        --argjson tries $tries <"$work/run"
    [ "$how" != cold ] || cooled[$server]=1
}

# Servers that were measured cold, and must be warmed up again.
declare -A cooled=()
warm_if_cooled() {
    [ -n "${cooled[$2]:-}" ] || return 0
    warm_recorded "$1" "$2"
    unset "cooled[$2]"
}

measure_recorded_round() {
    local snapshot=$1 round=$2 line vms touch how of first i
    while read -r of vms touch how line; do
        [ "$of" = "$snapshot" ] || continue
        read -r -a line <<<"$line"
        first=$((round % ${#line[@]}))
        for ((i = 0; i < ${#line[@]}; i++)); do
            measure_recorded_run "$snapshot" "$vms" "$touch" "$how" "${line[(first + i) % ${#line[@]}]}" "$round"
        done
    done <<<"$recorded_scenarios"
}

measure_recorded() {
    local snapshot round server
    if [ $tiny = 0 ] && [ -z "$guests" ]; then
        say "SKIPPED: recorded orders; no guests (--guests DIR)"
        return
    fi
    with_replay=1
    has_replay || with_replay=0
    [ $with_replay = 1 ] || say "SKIPPED: replay of recorded orders; this build has no traces"
    prepare_guests
    pack_guests
    can_be_cold=1
    cold_store "$work/lazy-store" || can_be_cold=0
    [ $can_be_cold = 1 ] || say "SKIPPED: cold runs; $(tail -n 1 "$work/evict.log")"
    for snapshot in "${recorded_snapshots[@]}"; do
        cp "$guests/$snapshot/ram" "$work/$snapshot.raw"
        start_recorded_servers "$snapshot"
        for server in "${!server_pid[@]}" cache; do
            warm_recorded "$snapshot" "$server"
        done
        for ((round = 1; round <= recorded_rounds; round++)); do
            await_quiet
            say "recorded: $snapshot, round $round of $recorded_rounds (idle machine: $busy_percent % of a CPU)"
            measure_recorded_round "$snapshot" "$round"
        done
        stop_recorded_servers
        rm "$work/$snapshot.raw"
    done
}
