// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/protocol/handshake_cases.h"

#include <stdio.h>
#include <string.h>

#define NUMBER "a region lacks a number that it must have, or it is not a whole number from 0 up"
#define NO_ARRAY "what the client sent is not a JSON array of regions"
#define MANY_FDS "more than one file descriptor came with the handshake"
#define NO_UFFD "the file descriptor that came with the handshake is not a userfaultfd"

const struct bad cases[] = {
    {"no fd, half-close", GOOD, NOTHING, AT_ONCE, HALF_CLOSE,
     "no userfaultfd came with the handshake"},
    {"a pipe", GOOD, A_PIPE, AT_ONCE, STAY, NO_UFFD},
    {"a memfd", GOOD, A_MEMFD, AT_ONCE, STAY, NO_UFFD},
    {"an eventfd", GOOD, AN_EVENTFD, AT_ONCE, STAY, NO_UFFD},
    {"three fds", GOOD, THREE, AT_ONCE, STAY, MANY_FDS},
    {"twelve fds", GOOD, TWELVE, AT_ONCE, STAY, MANY_FDS},
    {"the last of twelve fds", GOOD, LAST_OF_TWELVE, AT_ONCE, STAY, MANY_FDS},
    {"no UFFDIO_API", GOOD, RAW_UFFD, AT_ONCE, STAY,
     "its userfaultfd was not enabled with UFFDIO_API"},
    {"a blocking userfaultfd", GOOD, BLOCKING_UFFD, AT_ONCE, STAY, NULL},
    {"text, then the fd", GOOD, UFFD, TEXT_THEN_FD, STAY, NULL},
    {"the fd, then the text", GOOD, UFFD, FD_THEN_TEXT, STAY, NULL},
    {"byte by byte", GOOD, UFFD, BYTE_BY_BYTE, STAY, NULL},
    {"half-close after it", GOOD, UFFD, IN_ONE_MESSAGE, HALF_CLOSE, NULL},
    {"half-close in the middle", "[{\"size\":", UFFD, AT_ONCE, HALF_CLOSE,
     "the client closed the connection before its handshake was complete"},
    {"bad JSON", "[{\"base_host_virt_addr\":,}]", UFFD, AT_ONCE, STAY, NO_ARRAY},
    {"a comma too many", "[" REGION("@B", "@S", "0") ",]", UFFD, AT_ONCE, STAY, NO_ARRAY},
    {"brackets that do not match", "[{]}", UFFD, AT_ONCE, STAY, NO_ARRAY},
    {"NUL in the text", "[@0]", UFFD, AT_ONCE, STAY, NO_ARRAY},
    {"an object", REGION("@B", "@S", "0"), UFFD, AT_ONCE, STAY, NO_ARRAY},
    {"a request of another protocol", "GET / HTTP/1.1\r\n\r\n", UFFD, AT_ONCE, STAY, NO_ARRAY},
    {"a string", "\"[]\"", UFFD, AT_ONCE, STAY, NO_ARRAY},
    {"an empty array", "[]", UFFD, AT_ONCE, STAY, "there is no region"},
    {"not objects", "[1]", UFFD, AT_ONCE, STAY, "a region is not a JSON object"},
    {"deep nesting", "[@D]", UFFD, AT_ONCE, STAY, NO_ARRAY},
    {"no address", "[{\"size\":@S,\"offset\":0}]", UFFD, AT_ONCE, STAY, NUMBER},
    {"no size", "[{\"base_host_virt_addr\":@B,\"offset\":0}]", UFFD, AT_ONCE, STAY, NUMBER},
    {"no offset", "[{\"base_host_virt_addr\":@B,\"size\":@S}]", UFFD, AT_ONCE, STAY, NUMBER},
    {"a negative size", "[" REGION("@B", "-@S", "0") "]", UFFD, AT_ONCE, STAY, NUMBER},
    {"a negative offset", "[" REGION("@B", "@S", "-4096") "]", UFFD, AT_ONCE, STAY, NUMBER},
    {"a float", "[" REGION("@B", "@S.0", "0") "]", UFFD, AT_ONCE, STAY, NUMBER},
    {"a string for a number", "[" REGION("\"@B\"", "@S", "0") "]", UFFD, AT_ONCE, STAY, NUMBER},
    {"null for a number", "[" REGION("@B", "null", "0") "]", UFFD, AT_ONCE, STAY, NUMBER},
    {"beyond 64 bits", "[" REGION("@B", "99999999999999999999", "0") "]", UFFD, AT_ONCE, STAY,
     NO_ARRAY},
    {"a size of zero", "[" REGION("@B", "0", "0") "]", UFFD, AT_ONCE, STAY, "a region is empty"},
    {"a size not of pages", "[" REGION("@B", "4097", "0") "]", UFFD, AT_ONCE, STAY,
     "a region's size is not a multiple of its page size"},
    {"an address not of a page", "[" REGION("4097", "@S", "0") "]", UFFD, AT_ONCE, STAY,
     "a region's address is not a multiple of its page size"},
    {"an offset not of a page", "[" REGION("@B", "@S", "1") "]", UFFD, AT_ONCE, STAY,
     "a region's offset is not a multiple of 4096"},
    {"overlap in memory", "[" REGION("@B", "@S", "0") "," REGION("@B", "4096", "@S") "]", UFFD,
     AT_ONCE, STAY, "two regions overlap in memory"},
    {"overlap in the file", "[" REGION("@B", "@H", "0") "," REGION("@M", "@H", "4096") "]", UFFD,
     AT_ONCE, STAY, "two regions overlap in the memory file"},
    {"address overflow", "[" REGION("9223372036854771712", "@S", "0") "]", UFFD, AT_ONCE, STAY,
     "a region does not fit into an address space"},
    {"size overflow", "[" REGION("@B", "9223372036854771712", "0") "]", UFFD, AT_ONCE, STAY,
     "a region does not fit into an address space"},
    {"offset overflow", "[" REGION("@B", "@S", "9223372036854771712") "]", UFFD, AT_ONCE, STAY,
     "a region's offset and size overflow"},
    {"address zero", "[" REGION("0", "@S", "0") "]", UFFD, AT_ONCE, STAY,
     "a region does not fit into an address space"},
    {"larger than the image", "[" REGION("@B", "@I", "4096") "]", UFFD, AT_ONCE, STAY,
     "its regions end at byte 8392704 of the memory file, but the image has 8388608"},
    {"behind the image", "[" REGION("@B", "@S", "@I") "]", UFFD, AT_ONCE, STAY,
     "its regions end at byte 8650752 of the memory file, but the image has 8388608"},
    {"mixed page sizes",
     "[{\"base_host_virt_addr\":@B,\"size\":@S,\"offset\":0,\"page_size\":4096},"
     "{\"base_host_virt_addr\":1073741824,\"size\":2097152,\"offset\":2097152,"
     "\"page_size\":2097152}]",
     UFFD, AT_ONCE, STAY, "the regions have different page sizes"},
    {"an unknown page size",
     "[{\"base_host_virt_addr\":@B,\"size\":@S,\"offset\":0,\"page_size\":16384}]", UFFD, AT_ONCE,
     STAY, "the page size is neither 4096 nor 2097152"},
    {"70,000 bytes", "[@L]", UFFD, AT_ONCE, STAY,
     "what the client sent is longer than 65536 bytes"},
    {"70,000 bytes and no fd", "[@L]", NOTHING, AT_ONCE, STAY,
     "what the client sent is longer than 65536 bytes"},
    {"65 regions", "[@R]", UFFD, AT_ONCE, STAY, "there are more than 64 regions"},
};

const unsigned case_count = sizeof(cases) / sizeof(cases[0]);

static unsigned long long number_for(char what, unsigned long long base)
{
    switch (what) {
    case 'B':
        return base;
    case 'M':
        return base + GUEST_BYTES / 2;
    case 'S':
        return GUEST_BYTES;
    case 'H':
        return GUEST_BYTES / 2;
    case 'I':
        return IMAGE_BYTES;
    default:
        return 0;
    }
}

static size_t put_many(char *to, char what)
{
    size_t used = 0;
    for (unsigned i = 0; what == 'L' && i < 70000; i++)
        to[used++] = ' ';
    for (unsigned i = 0; what == 'D' && i < 6000; i++)
        to[used++] = i < 3000 ? '[' : ']';
    for (unsigned i = 0; what == 'R' && i < 65; i++)
        used += (size_t)snprintf(to + used, 128, "%s" REGION("%u", "4096", "%u"), i ? "," : "",
                                 (i + 1) * PAGE, i * PAGE);
    if (what == '0')
        to[used++] = '\0';
    return used;
}

size_t expand(char to[TEXT_MAX], const char *text, const uint8_t *memory)
{
    size_t used = 0;
    for (; *text != '\0'; text++) {
        if (*text != '@') {
            to[used++] = *text;
            continue;
        }
        text++;
        unsigned long long number = number_for(*text, (uintptr_t)memory);
        if (number > 0)
            used += (size_t)snprintf(to + used, 32, "%llu", number);
        else
            used += put_many(to + used, *text);
    }
    return used;
}
