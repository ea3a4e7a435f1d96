# SPDX-License-Identifier: Apache-2.0
#
# Codecs and their levels: what each makes of the memory of real guests, which --guest names, and of files.

measure_codecs_of() {
    local input=$1 name=$2
    await_quiet
    say "codecs: $name (idle machine: $busy_percent % of a CPU)"
    "$codecs" "$input" "$runs" "$codec_mib" >"$work/codecs.json" || die "codecs failed"
    # shellcheck disable=SC2016 # jq's variable
    record '. + {input: $input}' --arg input "$name" <"$work/codecs.json"
}

measure_codecs() {
    local input number=0
    for input in "${codec_guests[@]}"; do
        number=$((number + 1))
        measure_codecs_of "$input" "memory of Linux guest $number"
    done
    [ -s "$work/stand-in" ] || make_stand_in "${stand_in[@]}"
    measure_codecs_of "$work/stand-in" "files of /usr (${stand_in[0]})"
}
