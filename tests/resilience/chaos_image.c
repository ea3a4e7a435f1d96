// SPDX-License-Identifier: Apache-2.0
#include "tests/resilience/chaos_image.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/memory.h"

enum { RUN = 3, SHARED_PAGES = 5 };

uint64_t chaos_hash(uint64_t seed, uint64_t number)
{
    uint64_t state = seed ^ (number * 0xd1342543de82ef95u);
    return random_next(&state);
}

static void noise(uint64_t state, uint64_t *words)
{
    for (unsigned i = 0; i < CHAOS_WORDS; i++)
        words[i] = random_next(&state) | 1;
}

// Eight of nine words are equal, so that it compresses well.
static void text(uint64_t state, uint64_t *words)
{
    for (unsigned i = 0; i < CHAOS_WORDS; i++)
        words[i] = i % 9 == 0 ? random_next(&state) : 0x2020656e696c0a00u;
}

void chaos_image_page(uint64_t seed, uint32_t page, uint64_t ret_words[CHAOS_WORDS])
{
    switch (chaos_hash(seed, page / RUN) % 8) {
    case 0:
    case 1:
        memset(ret_words, 0, CHAOS_PAGE);
        break;
    case 2:
        noise(seed + page % SHARED_PAGES, ret_words);
        break;
    case 3:
    case 4:
        text(chaos_hash(~seed, page), ret_words);
        break;
    default:
        noise(chaos_hash(~seed, page), ret_words);
        break;
    }
}

int chaos_image_write(const char *path, uint64_t seed, uint32_t pages)
{
    uint64_t words[CHAOS_WORDS];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    for (uint32_t page = 0; page < pages; page++) {
        chaos_image_page(seed, page, words);
        if (write(fd, words, sizeof(words)) != (ssize_t)sizeof(words)) {
            int error = errno ? -errno : -EIO;
            close(fd);
            return error;
        }
    }
    return close(fd) < 0 ? -errno : 0;
}
