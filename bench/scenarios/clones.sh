# SPDX-License-Identifier: Apache-2.0
#
# Memory and speed of N VMs of one image, with its template and with pages of their own. Each VM reads all of the image
# and then writes to a twentieth. The first VM of the first run fills the template.

clones_status() {
    "$faultline" status --control "$work/clones.control" --json
}

# measure_some HOW SOCKET CLONES: makes one record, with the number of faults that the server has served for it.
measure_some() {
    local how=$1 socket=$2 count=$3 before after
    before=$(clones_status | jq .faults.read)
    "$clones" "$how" "$socket" "$count" "$clones_bytes" 5 >"$work/clones.json" || die "$count clones of $socket failed"
    clones_status >"$work/clones.status"
    after=$(jq .faults.read "$work/clones.status")
    record '{part: "clones", faults: ($after - $before), template: $status[0].templates.bytes} + .' \
        --argjson before "$before" --argjson after "$after" --slurpfile status "$work/clones.status" <"$work/clones.json"
    within 60 no_vm_left || die "the clones did not end"
}

no_vm_left() {
    [ "$(clones_status | jq .vms)" = 0 ]
}

measure_clones() {
    local count
    say "clones: $clones_counts"
    mkdir -p "$work/clones.sockets"
    "$memfile" "$clones_bytes" "$work/clones-file"
    "$faultline" pack --store "$work/clones-store" --name clones "$work/clones-file" >/dev/null 2>"$work/pack.log" ||
        die "pack failed: $(tail -n 3 "$work/pack.log")"
    start_server clones "$faultline" serve --store "$work/clones-store" --sockets "$work/clones.sockets" \
        --control "$work/clones.control"
    "$faultline" template --control "$work/clones.control" clones >/dev/null || die "there is no template"
    for count in $clones_counts; do
        await_quiet
        measure_some template "$work/clones.sockets/clones.template" "$count"
        # VMs with pages of their own: not more than the machine has memory and time for.
        if [ "$count" -le "$clones_private_most" ] &&
            [ $((count * clones_bytes / 1024)) -lt $(($(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo) / 2)) ]; then
            measure_some private "$work/clones.sockets/clones.sock" "$count"
        fi
    done
    stop_server clones
}
