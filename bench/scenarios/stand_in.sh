# SPDX-License-Identifier: Apache-2.0
#
# A memory file for runs without a real guest's.

# make_stand_in DATA ZEROS: files stand for a guest's page cache, and zeros for its free memory.
make_stand_in() {
    local data=$1 zeros=$2
    { find /usr/lib /usr/bin -xdev -type f -size +16k -print0 | sort -z | xargs -0 cat || true; } 2>/dev/null |
        head -c "$data" >"$work/stand-in"
    truncate -s "+$zeros" "$work/stand-in"
}
