# SPDX-License-Identifier: Apache-2.0
#
# VMs that map an image's file privately and touch its recorded set, all at once, beside the kernel's private mapping of
# the raw file and beside VMs whose userfaultfd is served. They write to a tenth of what they touch.
#
# States: `cold`: nothing of it is in memory. `first`: the frames are in the server's cache, the file has no page.
# `later`: others have touched the set before. `read` and `written` are the raw file's: the page cache has it from
# reading, or from writing, which makes larger folios.

# files_record STATE HOW SET FILE-CLONES-ARGUMENT...: runs the VMs and makes one record.
files_record() {
    local state=$1 how=$2 set=$3
    shift 3
    "$file_clones" "$@" >"$work/run" || die "files: $*: it failed"
    record '{part: "files", state: $state, server: $server, set: $set, round: $round} + .' --arg state "$state" \
        --arg server "$how" --arg set "$set" --argjson round "$round" <"$work/run"
}

# The frames of the set come into the server's cache by way of a VM at the socket: the file is not opened for it.
files_fill_cache() {
    "$file_clones" socket "$work/files.sockets/mem.sock" 1 "$files_image" "$work/files-$1.order" 0 >"$work/fill" ||
        die "files: no VM could fill the cache"
}

files_start() {
    start_serve files "$work/files-store" --files "$work/files-mount" "$@"
}

# files_vms SET CLONES WRITTEN
files_vms() {
    local set=$1 count=$2 written=$3 file=$work/files-mount/mem.mem raw=$work/files-raw socket=$work/files.sockets/mem.sock
    local rest=("$count" "$files_image" "$work/files-$set.order" "$written")
    if [ "$files_cold" = 1 ]; then
        cold "$raw" || die "still in the page cache: $(cat "$work/evict.log")"
        files_record cold raw "$set" file "$raw" "${rest[@]}"
        files_record later raw "$set" file "$raw" "${rest[@]}"
        cold_store "$work/files-store" || die "still in the page cache: $(cat "$work/evict.log")"
        files_start
        files_record cold file "$set" file "$file" "${rest[@]}"
        files_record later file "$set" file "$file" "${rest[@]}"
        stop_server files
    fi
    dd if="$work/files-raw" of="$work/files-written" bs=1M 2>/dev/null
    files_record written raw "$set" file "$work/files-written" "${rest[@]}"
    rm "$work/files-written"
    for replay in on off; do
        files_start --replay "$replay"
        files_fill_cache "$set"
        files_record first "file-replay-$replay" "$set" file "$file" "${rest[@]}"
        files_record later file "$set" file "$file" "${rest[@]}"
        if [ $replay = on ] && [ $((count * $(wc -l <"$work/files-$set.order") * 4)) -lt \
            $(($(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo) / 2)) ]; then
            files_record first userfaultfd "$set" socket "$socket" "${rest[@]}"
        fi
        stop_server files
    done
}

# Memory of many: what they wrote, their page tables, and what the page cache has of the file, once.
files_memory() {
    files_start
    files_record memory file spread file "$work/files-mount/mem.mem" "$files_memory_vms" "$files_image" \
        "$work/files-spread.order" 10
    fincore -b -n -o RES "$work/files-mount/mem.mem" |
        record '{part: "files", state: "cache", bytes: (. | tonumber), round: $round}' -R --argjson round "$round"
    stop_server files
}

prepare_files() {
    local pages=$(($(numfmt --from=iec "$files_image") / 4096)) touched=$(($(numfmt --from=iec "$files_set") / 4096))
    files_cold=1
    mkdir -p "$work/files-mount"
    "$memfile" "$files_image" "$work/files-raw"
    make_spread_order $pages $touched >"$work/files-spread.order"
    seq 0 $((pages - 1)) >"$work/files-all.order"
    pack_image "$work/files-store" mem "$work/files-raw"
    start_serve files "$work/files-store"
    record_trace files "$work/files-store" mem "$files_image" "$work/files-spread.order"
    stop_server files
    cold "$work/files-raw" || { files_cold=0; say "SKIPPED: cold files; $(tail -n 1 "$work/evict.log")"; }
}

measure_files() {
    local count
    { [ "$(id -u)" = 0 ] && [ -e /dev/fuse ] && has_verb warm; } ||
        { say "SKIPPED: files; they need root, /dev/fuse and a build that has them"; return 0; }
    # shellcheck source=replay.sh
    . "$bench/scenarios/replay.sh"
    prepare_files
    for ((round = 1; round <= files_rounds; round++)); do
        await_quiet
        say "files: round $round of $files_rounds (idle machine: $busy_percent % of a CPU)"
        for count in $files_counts; do
            files_vms spread "$count" 10
        done
        files_vms all 1 0
        files_memory
    done
}
