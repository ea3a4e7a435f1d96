# SPDX-License-Identifier: Apache-2.0
#
# Read-ahead from a cold disk, beside fio, which reads the same pack from start to end. They take turns, and each begins
# with nothing of the pack in the page cache.

record_cold() {
    record '{part: "cold", how: $how, round: $round} + .' --arg how "$1" --argjson round "$round"
}

cold_faultline() {
    "$coldread" "$work/cold-store" cold "$cold_cache" >"$work/cold.json" || die "coldread failed"
    record_cold faultline <"$work/cold.json"
}

# cold_fio NAME OPTION...
cold_fio() {
    local name=$1
    shift
    fio --name=cold --filename="$cold_pack" --readonly --rw=read --bs=1M --invalidate=1 --output-format=json "$@" \
        >"$work/fio.json" 2>"$work/fio.log" || die "fio failed: $(tail -n 3 "$work/fio.log")"
    jq -c '.jobs[0].read | {stored: .io_bytes, seconds: (.io_bytes / .bw_bytes)}' "$work/fio.json" | record_cold "$name"
}

measure_cold() {
    local round
    command -v fio >/dev/null || { say "cold: SKIPPED: fio is not installed" && return; }
    "$memfile" "$cold_image" "$work/cold-file"
    "$faultline" pack --store "$work/cold-store" --name cold "$work/cold-file" >/dev/null 2>"$work/pack.log" ||
        die "pack failed: $(tail -n 3 "$work/pack.log")"
    rm "$work/cold-file"
    cold_pack=$(ls -S "$work"/cold-store/packs/*.pack | head -n 1)
    sync
    for ((round = 1; round <= rounds; round++)); do
        await_quiet
        say "cold: round $round of $rounds (idle machine: $busy_percent % of a CPU)"
        cold_faultline
        cold_fio fio-direct --direct=1 --ioengine=io_uring --iodepth=16
        cold_fio fio-buffered --direct=0 --ioengine=psync
    done
    rm -r "$work/cold-store"
}
