#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# io_uring_register_restrictions() and io_uring_enable_rings() of liburing.
#
# With:     liburing 2.3-3 (Debian 12), gcc 12.2, x86-64.
# Guess:    what liburing.h declares can be linked: the shared library has what the static one has.
# Behaviour: both functions are declared, and are in liburing.a, but liburing.so.2 does not export them. A program that
#           uses them compiles, cannot be linked with -luring, and can be with the archive.
# Output seen: shared: undefined reference to `io_uring_enable_rings'
#           shared: undefined reference to `io_uring_register_restrictions'
#           static: linked
#           of the functions that are declared, and in the archive, these are not exported:
#           io_uring_enable_rings
#           io_uring_register_restrictions
# So:       a ring cannot be restricted by way of Debian's shared liburing; io_uring_register(2) itself can be called.
#
# Exits with 0 if it is still so.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/ring.c" <<'C'
#include <liburing.h>

int main(void)
{
    struct io_uring ring = {0};
    struct io_uring_restriction only = {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_NOP};
    return io_uring_register_restrictions(&ring, &only, 1) == 0 && io_uring_enable_rings(&ring) == 0;
}
C
shared=$(gcc -print-file-name=liburing.so) static=$(gcc -print-file-name=liburing.a)
[ -e "$shared" ] && [ -e "$static" ] || exit 77
{
    gcc -o "$dir/ring" "$dir/ring.c" -luring 2>&1 | grep -o 'undefined reference to .*' | sort | sed 's/^/shared: /' || true
    gcc -o "$dir/ring" "$dir/ring.c" "$static" && echo "static: linked"
    echo "of the functions that are declared, and in the archive, these are not exported:"
    gcc -E "$dir/ring.c" | grep -oE '\bio_uring_[a-z0-9_]+\(' | tr -d '(' | sort -u >"$dir/declared"
    nm "$static" | awk '$2 == "T" {print $3}' | sort -u >"$dir/archive"
    nm -D "$shared" | awk '$2 == "T" {print $3}' | sed 's/@.*//' | sort -u >"$dir/exported"
    comm -12 "$dir/declared" "$dir/archive" | comm -23 - "$dir/exported"
} | tee "$dir/out"
diff "$dir/out" - <<'OUT'
shared: undefined reference to `io_uring_enable_rings'
shared: undefined reference to `io_uring_register_restrictions'
static: linked
of the functions that are declared, and in the archive, these are not exported:
io_uring_enable_rings
io_uring_register_restrictions
OUT
