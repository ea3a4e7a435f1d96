// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/mutate.h"

#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/memory.h"

uint64_t fuzz_current; // the seed of this iteration: it can be repeated alone

_Noreturn void end(const char *what)
{
    fprintf(stderr, "fuzz: seed %" PRIu64 ": not so: %s\n", fuzz_current, what);
    abort();
}

void need(bool condition, const char *what)
{
    if (!condition)
        end(what);
}

void file_load(const struct temp *temp, const char *pattern, struct file *file)
{
    glob_t found;
    need(glob(temp_path(temp, pattern), 0, NULL, &found) == 0 && found.gl_pathc == 1, pattern);
    snprintf(file->path, sizeof(file->path), "%s", found.gl_pathv[0]);
    globfree(&found);
    int fd = open(file->path, O_RDONLY | O_CLOEXEC);
    off_t end = lseek(fd, 0, SEEK_END);
    need(fd >= 0 && end > 0, file->path);
    file->good_bytes = (size_t)end;
    file->good = malloc(file->good_bytes);
    file->bytes = malloc(file->good_bytes + GROWTH_MAX);
    need(file->good && file->bytes, "memory");
    need(pread(fd, file->good, file->good_bytes, 0) == (ssize_t)end, file->path);
    close(fd);
}

void file_save(const char *path, const uint8_t *bytes, size_t used)
{
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    need(fd >= 0 && write(fd, bytes, used) == (ssize_t)used, path);
    close(fd);
}

void file_free(struct file *file)
{
    free(file->good);
    free(file->bytes);
}

// Headers and tables are a small part of a file, and what is worth changing most.
static size_t choose_place(uint64_t *state, size_t used)
{
    uint64_t where = random_next(state) % 4;
    size_t near = used < 1024 ? used : 1024;
    if (where == 0)
        return random_next(state) % near;
    if (where == 1)
        return used - 1 - random_next(state) % near;
    return random_next(state) % used;
}

static void put_number(uint64_t *state, uint8_t *at, size_t room)
{
    static const uint64_t numbers[] = {0,          1,          0xff,        0xffff,
                                       0x10000,    0x7fffffff, 0xffffffff,  0x100000000,
                                       UINT64_MAX, INT64_MAX,  1ULL << 63U, 4096};
    uint64_t number = numbers[random_next(state) % (sizeof(numbers) / sizeof(numbers[0]))];
    size_t width = 1U << random_next(state) % 4;
    memcpy(at, &number, width < room ? width : room);
}

void file_change(uint64_t *state, struct file *file)
{
    size_t at = choose_place(state, file->used);
    size_t room = file->used - at;
    size_t length = 1 + random_next(state) % (room < 64 ? room : 64);
    switch (random_next(state) % 6) {
    case 0:
        file->bytes[at] ^= (uint8_t)(1U << random_next(state) % 8);
        break;
    case 1:
        file->bytes[at] = (uint8_t)random_next(state);
        break;
    case 2:
        put_number(state, file->bytes + at, room);
        break;
    case 3:
        memmove(file->bytes + at, file->bytes + random_next(state) % (file->used - length + 1),
                length);
        break;
    case 4:
        file->used = at + 1;
        break;
    default:
        length = file->good_bytes + GROWTH_MAX - file->used;
        length = length > 0 ? random_next(state) % length : 0;
        memset(file->bytes + file->used, 0, length);
        file->used += length;
        break;
    }
}
