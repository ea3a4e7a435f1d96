# SPDX-License-Identifier: Apache-2.0
#
# What pages of 2 MiB are worth, without a pool: the first write in each 2 MiB that a VM has not touched, where the kernel
# would make a transparent huge page for it and where it would not; and reads all over a working set, in pages of 4 KiB,
# in pages that were put together after replay, and in pages of a pool. Within a round all take turns.

prepare_huge() {
    local pages
    pages=$(($(numfmt --from=iec "$huge_set") / 4096))
    truncate -s "$huge_set" "$work/huge-zeros"
    "$memfile" "$huge_set" "$work/huge-bytes"
    pack_image "$work/huge-store" zeros "$work/huge-zeros"
    pack_image "$work/huge-store" bytes "$work/huge-bytes"
    seq 0 $((pages - 1)) >"$work/huge.order"
    start_serve train "$work/huge-store"
    record_trace train "$work/huge-store" bytes "$huge_set" "$work/huge.order"
    stop_server train
    rm "$work/huge-zeros" "$work/huge-bytes"
}

# run_guest SERVER IMAGE PAGE-SIZE ADVICE HOW NAME: makes one record.
run_guest() {
    "$huge_guest" "$work/$1.sockets/$2.sock" "$huge_set" "$3" "$4" "$5" >"$work/huge.run" ||
        die "$6: the VM failed"
    record '{part: "huge", what: $what, name: $name, round: $round, bytes: $bytes} + .' --arg what "${5#huge-}" \
        --arg name "$6" --argjson round "$round" --argjson bytes "$(numfmt --from=iec "$huge_set")" <"$work/huge.run"
}

measure_huge_round() {
    run_guest small zeros 4K small writes never
    run_guest small zeros 4K huge writes always
    run_guest bare zeros 4K huge writes "always, --prefetch 0"
    run_guest small bytes 4K small reads "4 KiB"
    run_guest put_together bytes 4K none huge-reads "put together"
    [ "$have_huge_pages" = 0 ] || run_guest small bytes 2M none reads "a pool's"
}

measure_huge() {
    local set_pages
    set_pages=$(($(numfmt --from=iec "$huge_set") / 2097152))
    have_huge_pages=1
    reserve_huge_pages $((set_pages * 11 / 10 + 8)) || have_huge_pages=0
    [ $have_huge_pages = 1 ] || say "SKIPPED: reads in a pool's pages; $set_pages huge pages cannot be reserved"
    prepare_huge
    start_serve small "$work/huge-store"
    start_serve bare "$work/huge-store" --prefetch 0
    start_serve put_together "$work/huge-store" --huge after-replay
    for ((round = 1; round <= huge_rounds; round++)); do
        await_quiet
        say "huge: round $round of $huge_rounds (idle machine: $busy_percent % of a CPU)"
        measure_huge_round
    done
    stop_server small
    stop_server bare
    stop_server put_together
    give_back_huge_pages
}
