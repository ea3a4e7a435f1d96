// SPDX-License-Identifier: Apache-2.0
//
// What the VMMs of handshake_test.c send.
#ifndef FAULTLINE_TESTS_PROTOCOL_HANDSHAKE_CASES_H
#define FAULTLINE_TESTS_PROTOCOL_HANDSHAKE_CASES_H

#include <stddef.h>
#include <stdint.h>

#include "tests/support/memory.h"

enum { IMAGE_BYTES = 8 << 20, GUEST_BYTES = 64 * PAGE, TEXT_MAX = 100000 };

enum cargo {
    UFFD,
    NOTHING,
    A_PIPE,
    A_MEMFD,
    AN_EVENTFD,
    THREE,
    TWELVE,
    LAST_OF_TWELVE,
    RAW_UFFD,
    BLOCKING_UFFD
};
enum delivery { AT_ONCE, IN_ONE_MESSAGE, BYTE_BY_BYTE, TEXT_THEN_FD, FD_THEN_TEXT };
enum ending { STAY, HALF_CLOSE };

struct bad {
    const char *name;
    const char *text; // see expand()
    enum cargo cargo;
    enum delivery delivery;
    enum ending ending;
    const char *reason; // NULL: it is accepted
};

#define REGION(base, size, offset)                                                                 \
    "{\"base_host_virt_addr\":" base ",\"size\":" size ",\"offset\":" offset "}"
#define GOOD "[" REGION("@B", "@S", "0") "]"

extern const struct bad cases[];
extern const unsigned case_count;

// @B, @M, @S, @H: the guest's memory, its middle, its size, half of it. @I: the size of the image.
// @0: a NUL. @L: 70,000 spaces. @D: 3000 opening and closing brackets. @R: 65 regions.
size_t expand(char to[TEXT_MAX], const char *text, const uint8_t *memory);

#endif
