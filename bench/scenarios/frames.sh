# SPDX-License-Identifier: Apache-2.0
#
# Frame sizes: what each would do to a guest's memory, and to files, which a guest's page cache consists of.

measure_frames_of() {
    local input=$1 name=$2
    await_quiet
    say "frames: $name (idle machine: $busy_percent % of a CPU)"
    "$frames" "$input" "$runs" >"$work/frames.json" || die "frames failed"
    # shellcheck disable=SC2016 # jq's variable
    record '. + {input: $input}' --arg input "$name" <"$work/frames.json"
}

measure_frames() {
    [ -z "$guest" ] || measure_frames_of "$guest" "memory of a Linux guest"
    [ -s "$work/stand-in" ] || make_stand_in "${stand_in[@]}"
    measure_frames_of "$work/stand-in" "files of /usr (${stand_in[0]})"
}
