# SPDX-License-Identifier: Apache-2.0
#
# How fast a trace is streamed into a VM that touches nothing, as the engine's log says, beside the best that one
# thread can copy into such memory, and beside what fio reads from the same disk. Each round measures all of them in
# turn.

# Three images of the same memory. The trace of `seq` is the first half in order. That of `spread` has runs of 64 KiB
# from all over the memory. `laidout` has the same runs, and `faultline optimize` has laid the image out in their
# order.
replay_images=(seq spread laidout)

# make_spread_order PAGES TOUCHED: prints TOUCHED of PAGES pages, in runs of 16 pages that are shuffled.
make_spread_order() {
    local pages=$1 touched=$2
    awk -v runs=$((pages / 16)) -v wanted=$((touched / 16)) 'BEGIN {
        srand(1)
        for (i = 0; i < runs; i++) run[i] = i
        for (i = 0; i < wanted; i++) {
            j = i + int(rand() * (runs - i)); page = run[j] * 16; run[j] = run[i]
            for (k = 0; k < 16; k++) print page + k
        }
    }'
}

prepare_replay() {
    local image pages touched
    pages=$(($(numfmt --from=iec "$replay_image_size") / 4096))
    touched=$(($(numfmt --from=iec "$replay_set") / 4096))
    "$memfile" "$replay_image_size" "$work/replay-memory"
    seq 0 $((touched - 1)) >"$work/seq.order"
    make_spread_order $pages $touched >"$work/spread.order"
    cp "$work/spread.order" "$work/laidout.order"
    for image in "${replay_images[@]}"; do
        pack_image "$work/bulk-store" "$image" "$work/replay-memory" # the first stores the pages that all share
    done
    rm "$work/replay-memory"
    [ $with_replay = 1 ] || return 0
    start_serve bulk "$work/bulk-store"
    for image in "${replay_images[@]}"; do
        record_trace bulk "$work/bulk-store" "$image" "$replay_image_size" "$work/$image.order"
    done
    stop_server bulk
    "$faultline" optimize --store "$work/bulk-store" laidout >/dev/null 2>"$work/optimize.log" ||
        die "optimize failed: $(tail -n 3 "$work/optimize.log")"
}

replays_logged() {
    grep -c 'event=replayed' "$work/bulk.log" || true
}

more_replays_than() {
    [ "$(replays_logged)" -gt "$1" ]
}

# Prints the bytes that the server has read from a disk, or null if the kernel does not count them.
disk_reads() {
    local pid
    for pid in $(server_pids bulk); do
        cat "/proc/$pid/io" 2>/dev/null
    done | awk '$1 == "read_bytes:" { sum += $2; seen = 1 } END { if (seen) printf "%.0f\n", sum; else print "null" }'
}

# Touches and frees as much memory as the server's cache will need, as memory is slow that is new to a virtual machine.
# loadgen does the same for the VM.
warm_server_memory() {
    "$bulk_copy" 4K "$replay_set" 2M >/dev/null
}

# replay_once IMAGE STATE PAGE-SIZE: attaches one VM until all of its trace is installed.
replay_once() {
    local image=$1 state=$2 page_size=$3 before vm_pid read_before read_after
    warm_server_memory
    before=$(replays_logged)
    read_before=$(disk_reads)
    mkfifo "$work/hold"
    "$loadgen" --socket "$work/bulk.sockets/$image.sock" --memory "$replay_image_size" --page-size "$page_size" \
        --touch 0 --warm "$replay_set" --hold <"$work/hold" >"$work/held" &
    vm_pid=$!
    exec 9>"$work/hold"
    within 120 more_replays_than "$before" || die "$image: no replay in 120 s: $(tail -n 3 "$work/bulk.log")"
    read_after=$(disk_reads)
    exec 9>&-
    wait $vm_pid || die "$image: the VM failed"
    rm "$work/hold"
    grep 'event=replayed' "$work/bulk.log" | tail -n 1 | sed 's/.* pages=\([0-9]*\).* us=\([0-9]*\).*/\1 \2/' |
        record 'split(" ") | map(tonumber) | {part: "replay", how: "replay", image: $image, state: $state,
            page_size: $page_size, round: $round, bytes: (.[0] * 4096), seconds: (.[1] / 1e6),
            disk_bytes: (if $after == null then null else $after - $before end)}' -R \
            --arg image "$image" --arg state "$state" --argjson page_size "$(numfmt --from=iec "$page_size")" \
            --argjson round "$round" --argjson before "$read_before" --argjson after "$read_after"
}

memory_is_taken() {
    "$faultline" status --json --control "$work/bulk.control" | jq -e '.cache.memory >= .cache.limit' >/dev/null
}

# Starts a server and waits until it has taken the memory of its cache.
start_prepared_serve() {
    start_serve bulk "$work/bulk-store" --cache-prealloc "$serve_cache"
    within 120 memory_is_taken || die "the memory of the cache was not taken in 120 s: $(tail -n 3 "$work/bulk.log")"
}

# Cold: the server has just started, and the page cache has nothing of the store. Warm: the server has just started.
# Prepared: and it has taken the memory of its cache. Cached: it has the frames in its cache. Again: and it has put
# pages of 2 MiB together from them before.
measure_replay_image() {
    local image=$1
    if [ "$can_be_cold" = 1 ]; then
        cold_store "$work/bulk-store" || die "still in the page cache: $(cat "$work/evict.log")"
        start_serve bulk "$work/bulk-store"
        replay_once "$image" cold 4K
        stop_server bulk
    fi
    cat "$work/bulk-store"/packs/* >/dev/null # into the page cache
    start_serve bulk "$work/bulk-store"
    replay_once "$image" warm 4K
    replay_once "$image" cached 4K
    # An order that is spread over all memory would need half of it in huge pages.
    if [ $have_huge_pages = 1 ] && [ "$image" = seq ]; then
        replay_once "$image" cached 2M
        replay_once "$image" again 2M
    fi
    stop_server bulk
    [ $has_prealloc = 1 ] || return 0
    start_prepared_serve
    replay_once "$image" prepared 4K
    stop_server bulk
    if [ $have_huge_pages = 1 ] && [ "$image" = seq ]; then
        start_prepared_serve
        replay_once "$image" prepared 2M
        stop_server bulk
    fi
}

measure_bulk_copy() {
    local page_size=$1 chunk
    for chunk in "${@:2}"; do
        "$bulk_copy" "$page_size" "$replay_set" "$chunk" |
            record '{part: "replay", how: "bulk", round: $round} + .' --argjson round "$round"
    done
}

# Has fio read the store's largest pack from start to end, past the page cache.
measure_disk() {
    local pack
    command -v fio >/dev/null || { say "SKIPPED: fio is not installed"; return 0; }
    [ "$can_be_cold" = 1 ] || return 0
    pack=$(find "$work/bulk-store/packs" -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2)
    cold "$pack" || die "still in the page cache: $(cat "$work/evict.log")"
    fio --name=seq --filename="$pack" --readonly --rw=read --bs=1M --direct=1 --ioengine=libaio --iodepth=16 \
        --output-format=json >"$work/fio" 2>"$work/fio.log" || { say "SKIPPED: fio: $(tail -n 1 "$work/fio.log")"; return 0; }
    record '.jobs[0].read | {part: "replay", how: "fio", round: $round, bytes: .io_bytes, seconds: (.runtime / 1000)}' \
        --argjson round "$round" <"$work/fio"
}

measure_replay_round() {
    local image
    measure_bulk_copy 4K 64K 2M
    [ $have_huge_pages = 0 ] || measure_bulk_copy 2M 2M
    measure_disk
    [ $with_replay = 1 ] || return 0
    for image in "${replay_images[@]}"; do
        measure_replay_image "$image"
    done
}

measure_replay() {
    with_replay=1
    { has_replay && has_verb optimize; } || with_replay=0
    [ $with_replay = 1 ] || say "SKIPPED: bulk replay; this build has no traces (only its ceilings are measured)"
    has_prealloc=0
    [[ $("$faultline" serve --help) != *--cache-prealloc* ]] || has_prealloc=1
    have_huge_pages=1
    reserve_huge_pages "$replay_huge_pages" || have_huge_pages=0
    [ $have_huge_pages = 1 ] || say "SKIPPED: replay in 2 MiB pages; $replay_huge_pages huge pages cannot be reserved"
    prepare_replay
    can_be_cold=1
    cold_store "$work/bulk-store" || can_be_cold=0
    [ $can_be_cold = 1 ] || say "SKIPPED: cold replay; $(tail -n 1 "$work/evict.log")"
    for ((round = 1; round <= replay_rounds; round++)); do
        await_quiet
        say "replay: round $round of $replay_rounds (idle machine: $busy_percent % of a CPU)"
        measure_replay_round
    done
    give_back_huge_pages
}
