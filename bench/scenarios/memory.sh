# SPDX-License-Identifier: Apache-2.0
#
# Memory of the server with no VM, with many attached VMs that have touched nothing, and with many that have touched 64
# pages each. The server has just started each time. Its frame cache is part of its memory.

# Prints how many VMs are attached. The bare handler cannot be asked, but has one thread for each VM.
attached() {
    case $1 in
    serve) "$faultline" status --control "$work/serve.control" --json | jq .vms ;;
    bare) echo $(($(ls "/proc/${server_pid[bare]}/task" | wc -l) - 1)) ;;
    esac
}

all_attached() {
    [ "$(attached "$1")" = "$2" ]
}

# record_memory SERVER VMS TOUCHED: records the memory of all processes of the server together, in bytes.
record_memory() {
    local server=$1 vms=$2 touched=$3 allocated=null
    if [ "$server" = serve ]; then
        allocated=$("$faultline" status --control "$work/serve.control" --json | jq '.memory.allocated')
    fi
    for pid in $(server_pids "$server"); do
        cat "/proc/$pid/smaps_rollup"
    done | awk '{ sum[$1] += $2 * 1024 }
        END { printf "{\"rss\":%.0f,\"pss\":%.0f,\"anonymous\":%.0f}\n", sum["Rss:"], sum["Pss:"], sum["Anonymous:"] }' |
        record '{part: "memory", server: $server, vms: $vms, touched: $touched, allocated: $allocated} + .' \
            --arg server "$server" --argjson vms "$vms" --argjson touched "$touched" --argjson allocated "$allocated"
}

start_memory_server() {
    case $1 in
    serve) start_serve serve "$work/memory-store" ;;
    bare) start_server bare "$bare_handler" "$work/bare.sock" "$work/memory-file" ;;
    esac
}

# with_vms SERVER TOUCHED: measures with VMs. They stay attached until the pipe closes that is their standard input.
with_vms() {
    local server=$1 touched=$2 socket=$work/bare.sock vms_pid
    [ "$server" = bare ] || socket=$work/serve.sockets/memory.sock
    start_memory_server "$server"
    mkfifo "$work/hold"
    rm -f "$work/held" # the report of an earlier run must not be taken for this one's
    "$loadgen" --socket "$socket" --vms "$memory_vms" --memory "$memory_of_vm" --touch "$touched" --hold \
        <"$work/hold" >"$work/held" &
    vms_pid=$!
    exec 9>"$work/hold"
    within 60 test -s "$work/held" || die "$server: the VMs did not start"
    within 60 all_attached "$server" "$memory_vms" || die "$server: not all VMs are attached"
    record_memory "$server" "$memory_vms" "$touched"
    exec 9>&-
    wait $vms_pid || die "$server: a VM failed"
    rm "$work/hold"
    stop_server "$server"
}

measure_memory() {
    local server
    say "memory: $memory_vms VMs"
    "$memfile" "$memory_of_vm" "$work/memory-file"
    pack_image "$work/memory-store" memory "$work/memory-file"
    for server in serve bare; do
        start_memory_server $server
        record_memory $server 0 0
        stop_server $server
        with_vms $server 0
        with_vms $server 64
    done
}
