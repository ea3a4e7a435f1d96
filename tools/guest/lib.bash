# shellcheck shell=bash
# shellcheck disable=SC2034 # what guest_tick sets is for its callers
# Shared by the scripts beside it: a QEMU guest whose console is read line by line and which QMP commands steer.
# QEMU runs inside its directory with relative names, so that no path needs QEMU's or a shell's quoting.

guest_mib=256
# Set by callers before guest_start: the library QEMU runs with (a name without spaces), and "align=2M," where the library
# takes huge pages.
qemu_preload='' qemu_align=''
dir='' qemu_pid='' qmp_pid=''
trap '' PIPE # a QEMU that ended is a failed write, with its sentence

fail() {
    echo "${0##*/}: $*" >&2
    [ ! -s "$dir/qemu.log" ] || sed 's/^/QEMU: /' "$dir/qemu.log" >&2
    exit 1
}

# Prints the path of the newest cloud kernel: from the cache, else from Debian, else whatever the cache has. $1 is a directory
# that it may make.
guest_kernel() {
    local cache=${XDG_CACHE_HOME:-~/.cache}/faultline package kernel
    package=$(apt-cache show --no-all-versions linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^Depends:.*\(linux-image-[0-9][^ ,]*-cloud-amd64\).*/\1/p')
    kernel=$cache/vmlinuz-${package#linux-image-}
    if [ -n "$package" ] && [ ! -s "$kernel" ]; then
        mkdir -p "$cache" "$1"
        if (cd "$1" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$package"); then
            dpkg-deb -x "$1"/*.deb "$1"
            mv "$1"/boot/vmlinuz-* "$kernel"
        fi
    fi
    [ -s "$kernel" ] || kernel=$(find "$cache" -name 'vmlinuz-*' -size +0 2>/dev/null | sort -V | tail -n 1)
    [ -n "$kernel" ] || fail "no kernel for the guest: apt-get could not download linux-image-cloud-amd64's (apt-get update?)"
    echo "$kernel"
}

# Makes the initial file system $2 of busybox, the workload, and an init from standard input; $1 is a directory that it makes.
guest_initrd() {
    mkdir -p "$1/bin" "$1/proc"
    cp "$(command -v busybox)" "$1/bin/busybox"
    gcc -O2 -static -o "$1/workload" "$here/workload.c"
    cat >"$1/init"
    chmod +x "$1/init"
    (cd "$1" && find . | cpio --quiet -o -H newc) >"$2"
}

# Starts QEMU in directory $1, which holds kernel, initrd and ram; the rest are more arguments for QEMU. It dies with this
# script.
guest_start() {
    dir=$1
    shift
    exec {console}< <(
        cd "$dir" || exit
        [ -z "$qemu_preload" ] || export LD_PRELOAD=$qemu_preload
        exec setpriv --pdeathsig KILL qemu-system-x86_64 -accel tcg -nodefaults -no-user-config -no-reboot -display none \
            -object "memory-backend-file,id=ram,mem-path=ram,share=on,${qemu_align}size=${guest_mib}M" \
            -machine pc,memory-backend=ram -m "$guest_mib" -kernel kernel -initrd initrd \
            -append "${guest_append:-}" -serial file:/dev/stdout -qmp unix:qmp,server=on,wait=off "$@" \
            </dev/null 2>qemu.log
    )
    qemu_pid=$!
    local deadline=$((SECONDS + 30))
    until [ -S "$dir/qmp" ]; do
        kill -0 "$qemu_pid" 2>/dev/null || guest_ended
        [ "$SECONDS" -lt "$deadline" ] || fail "QEMU made no QMP socket in 30 s"
        sleep 0.05
    done
    coproc QMP { cd "$dir" && exec socat - UNIX-CONNECT:qmp 2>/dev/null; }
    qmp_pid=$!
    exec {qmp_to}>&"${QMP[1]}" {qmp_from}<&"${QMP[0]}" # bash closes its own two when socat ends
    qmp '{"execute": "qmp_capabilities"}'
}

# Kills QEMU at once, and waits until it is gone: whatever serves its memory may end after that.
guest_kill() {
    [ -n "$qemu_pid" ] || return 0
    kill -KILL "$qemu_pid" 2>/dev/null || true
    wait "$qemu_pid" 2>/dev/null || true
    while kill -0 "$qemu_pid" 2>/dev/null; do sleep 0.05; done
    qemu_pid=''
    [ -n "$qmp_pid" ] || return 0
    kill "$qmp_pid" 2>/dev/null || true
    wait "$qmp_pid" 2>/dev/null || true
}

# QEMU has hung up: fails with how it ended.
guest_ended() {
    local deadline=$((SECONDS + 5)) status=0
    while kill -0 "$qemu_pid" 2>/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || fail "QEMU closed its QMP connection"
        sleep 0.05
    done
    wait "$qemu_pid" 2>/dev/null || status=$?
    [ "$status" -le 128 ] || fail "QEMU was ended by SIG$(kill -l "$status")"
    fail "QEMU ended with status $status"
}

# Sends one QMP command and puts what it returned into $answer; events in between are of no interest.
qmp() {
    local status=0
    { printf '%s\n' "$1" >&"$qmp_to"; } 2>/dev/null || guest_ended
    while IFS= read -r -t 60 -u "$qmp_from" answer || status=$?; [ "$status" -eq 0 ]; do
        case $answer in
        '{"return"'*) return ;;
        '{"error"'*) fail "QEMU refused $1: $answer" ;;
        esac
    done
    [ "$status" -gt 128 ] || guest_ended # above 128: 60 s passed
    fail "QEMU did not answer $1"
}

# RAM stays in its file; a migration carries the state of the devices only.
qmp_ignore_shared() {
    qmp '{"execute": "migrate-set-capabilities", "arguments":
        {"capabilities": [{"capability": "x-ignore-shared", "state": true}]}}'
}

# Waits for the migration to end, at most $1 seconds.
qmp_migrated() {
    local deadline=$((SECONDS + $1))
    while [ "$SECONDS" -lt "$deadline" ]; do
        qmp '{"execute": "query-migrate"}'
        case $(jq -r '.return.status // "none"' <<<"$answer") in
        completed) return ;;
        failed | cancelled) fail "the migration failed: $answer" ;;
        esac
        sleep 0.05
    done
    fail "the migration did not end in $1 s: $answer"
}

# Reads the console up to the next line of the workload, waiting until the time $1 (of SECONDS). Sets $line, $tick and
# $verdict. What was read of a line that is not complete yet stays in $partial.
partial=
guest_tick() {
    local left
    while left=$(($1 - SECONDS)) && [ "$left" -gt 0 ]; do
        if ! IFS= read -r -t "$left" -u "$console" line; then
            partial+=$line
            kill -0 "$qemu_pid" 2>/dev/null || guest_ended
            continue
        fi
        line=${partial}${line%$'\r'}
        partial=
        if [[ $line =~ ^tick\ ([0-9]+)\ checksum\ [0-9a-f]+\ (OK|BAD) ]]; then
            tick=${BASH_REMATCH[1]}
            verdict=${BASH_REMATCH[2]}
            return
        fi
        [[ $line != *"Kernel panic"* && $line != workload:* ]] || fail "the guest failed: $line"
    done
    fail "the guest's console showed no tick in time"
}
