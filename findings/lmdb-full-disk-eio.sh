#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# mdb_txn_commit() on a file system that gets full.
#
# With:     LMDB 0.9.24 (Debian 12), Linux 6.18, x86-64, a tmpfs of 64 to 124 KiB.
# Guess:    it says ENOSPC, as write() does on the next attempt.
# Behaviour: a write that the end of the space cuts short is EIO, "Input/output error"; only one that
#           finds no space at all is ENOSPC. Whoever waits for ENOSPC, to make room or to tell the
#           user so, tells of a broken disk instead.
# Output seen: 64 KiB: commit says 5 (Input/output error), and so for 15 of 16 sizes;
#           88 KiB: commit says 28 (No space left on device)
#
# Needs root, for a mount namespace. Exits with 0 if it is still so.
set -euo pipefail
[ "${1:-}" = inside ] || exec unshare --mount "$0" inside
dir=$(mktemp -d)
trap 'umount "$dir/disk" 2>/dev/null || true; rm -rf "$dir"' EXIT
mkdir "$dir/disk"
cat > "$dir/full.c" <<'C'
#include <lmdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static char value[1500];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    int r = mdb_env_create(&env);
    r = r ? r : mdb_env_set_mapsize(env, 64 << 20);
    r = r ? r : mdb_env_open(env, argv[argc - 1], MDB_NOTLS, 0600);
    for (int round = 0; !r && round < 200; round++) {
        r = mdb_txn_begin(env, NULL, 0, &txn);
        r = r ? r : mdb_dbi_open(txn, NULL, 0, &dbi);
        for (int i = 0; !r && i < 8; i++) {
            int number = 8 * round + i;
            MDB_val key = {sizeof(number), &number};
            MDB_val data = {sizeof(value), value};
            r = mdb_put(txn, dbi, &key, &data, 0);
        }
        r = r ? r : mdb_txn_commit(txn);
    }
    printf("commit says %d (%s)\n", r, mdb_strerror(r));
    return 0;
}
C
cc -o "$dir/full" "$dir/full.c" -llmdb
found=1
for kib in $(seq 64 4 124); do
    mount -t tmpfs -o "size=${kib}k" full "$dir/disk"
    said=$("$dir/full" "$dir/disk")
    umount "$dir/disk"
    echo "$kib KiB: $said"
    case $said in *"says 5 "*) found=0 ;; esac
done
exit $found
