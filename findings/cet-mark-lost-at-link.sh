#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A program of which all code was compiled for CET (-fcf-protection=full), and the mark that the kernel asks for.
#
# With:     gcc 12.2.0-14+deb12u1, binutils 2.40-2, libc6-dev 2.36-9+deb12u14 (Debian 12), x86-64.
# Guess:    such a program is marked with IBT and SHSTK, and a kernel that can turns them on.
# Behaviour: the linker keeps a mark only if every object has it. Those of gcc have it (crtbeginS.o, crtendS.o), but
#           Debian's libc6-dev is built without: Scrt1.o, crt1.o, crti.o, crtn.o. No program and no shared library that
#           is linked with them is marked, and nothing is said of it. "-z ibt -z shstk" marks them all the same.
# Output seen: object: IBT, SHSTK
#           program: not marked
#           shared library: not marked
#           the linker, asked by -z cet-report=warning: Scrt1.o crti.o crtn.o
#           program, with -z ibt -z shstk: IBT, SHSTK
# So:       look at what was linked, not at the flags. Marking by force says of the C library's start-up code what its
#           packagers do not.
#
# Exits with 0 if it is still so.
set -euo pipefail
[ "$(uname -m)" = x86_64 ] || exit 77
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
echo 'int main(void) { return 0; }' >program.c

mark() { # FILE: what it is marked with
    local marks
    marks=$(readelf -nW "$1" | grep -oE 'x86 feature: [A-Z]+(, [A-Z]+)*' | sed 's/.*: //') || true
    echo "${marks:-not marked}"
}

{
    gcc -fcf-protection=full -fPIC -c program.c
    echo "object: $(mark program.o)"
    gcc -fcf-protection=full -o program program.o
    echo "program: $(mark program)"
    gcc -fcf-protection=full -shared -o library.so program.o
    echo "shared library: $(mark library.so)"
    echo "the linker, asked by -z cet-report=warning:" \
        "$(gcc -fcf-protection=full -o reported program.o -Wl,-z,cet-report=warning 2>&1 |
            sed -n 's/.*\/\([A-Za-z0-9]*\.o\): warning: missing IBT and SHSTK.*/\1/p' | paste -sd ' ')"
    gcc -fcf-protection=full -o forced program.o -Wl,-z,ibt -Wl,-z,shstk
    echo "program, with -z ibt -z shstk: $(mark forced)"
} | tee out
diff out - <<'OUT'
object: IBT, SHSTK
program: not marked
shared library: not marked
the linker, asked by -z cet-report=warning: Scrt1.o crti.o crtn.o
program, with -z ibt -z shstk: IBT, SHSTK
OUT
