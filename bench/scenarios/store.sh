# SPDX-License-Identifier: Apache-2.0
#
# Packing: how fast, and how small the result, beside compressors of whole files. From these no single page can be read
# back, but their figures are well known.

record_store() {
    local how=$1 seconds=$2 stored=$3 stages=$4
    jq -n '{part: "store", how: $how, input: $input, bytes: $bytes, seconds: $seconds, stored: $stored, stages: $stages}' \
        --arg how "$how" --arg input "$store_input_name" --argjson bytes "$(stat -c %s "$store_input")" \
        --argjson seconds "$seconds" --argjson stored "$stored" --argjson stages "$stages" |
        record .
}

# timed COMMAND...: sets `seconds`. It syncs first, so that earlier writes do not count.
timed() {
    local from
    sync
    from=$EPOCHREALTIME
    "$@"
    seconds=$(awk -v from="$from" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.6f", to - from }')
}

# Prints the bytes that the file system has allocated: the files may be sparse.
disk_bytes() {
    du -s -B1 "$1" | cut -f1
}

pack_once() {
    "$faultline" pack --json --store "$work/pack-store" --name guest "$store_input" \
        >"$work/pack.json" 2>"$work/pack.log"
}

measure_pack() {
    rm -rf "$work/pack-store"
    timed pack_once || die "pack failed: $(tail -n 3 "$work/pack.log")"
    record_store '`faultline pack`' "$seconds" "$(disk_bytes "$work/pack-store")" "$(pack_stages <"$work/pack.json")"
}

pack_stages() {
    jq -c '{hash: .hash_seconds, compress: .compress_seconds, write: .write_seconds, index: .index_seconds}'
}

compress_once() {
    "$@" -q -c "$store_input" >"$work/compressed"
}

measure_compressor() {
    timed compress_once "$@"
    record_store "\`$*\`" "$seconds" "$(stat -c %s "$work/compressed")" null
}

measure_input() {
    local run
    store_input=$1
    store_input_name=$2
    cat "$store_input" >/dev/null # from the page cache, every time
    for ((run = 1; run <= runs; run++)); do
        await_quiet
        say "store: $store_input_name, run $run of $runs (idle machine: $busy_percent % of a CPU)"
        measure_pack
        measure_compressor lz4 -1
        measure_compressor zstd -3
    done
}

measure_store() {
    [ -z "$guest" ] || measure_input "$guest" "memory of a Linux guest"
    make_stand_in "${stand_in[@]}"
    measure_input "$work/stand-in" "files of /usr (${stand_in[0]}) and zeros (${stand_in[1]}), not a guest"
}
