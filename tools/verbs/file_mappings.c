// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The mappings of a file say where each part of it is. Firecracker's balloon
// maps anonymous memory over what the guest gives back, which leaves gaps between these parts. A
// gap within a region is known by the addresses: they go on behind it as if it were not there. A
// gap at the end of one region, or at the beginning of the next, is filled by the anonymous memory
// that lies there, if it is just as much; where there is more, some of it is another's, and that is
// refused.
#include "tools/verbs/file_mappings.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "snapshot/read.h"

// --- the text ---

static int add_mapping(struct file_mappings *mappings, const struct file_mapping *one)
{
    if (mappings->count == mappings->room) {
        size_t room = mappings->room ? 2 * mappings->room : 256;
        struct file_mapping *all = reallocarray(mappings->all, room, sizeof(*all));
        if (!all)
            return -ENOMEM;
        mappings->all = all;
        mappings->room = room;
    }
    mappings->all[mappings->count++] = *one;
    return 0;
}

static bool parse_line(const char *line, struct file_mapping *ret_mapping)
{
    char mode[5];
    unsigned major;
    unsigned minor;
    int name = 0;
    struct file_mapping *one = ret_mapping;
    *one = (struct file_mapping){0};
    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 " %n", &one->start,
               &one->end, mode, &one->offset, &major, &minor, &one->inode, &name) != 7)
        return false;
    one->device = (uint64_t)major << 32 | minor;
    one->shared = mode[3] == 's';
    one->writable = mode[1] == 'w';
    one->plain = one->inode == 0 && (!line[name] || strncmp(line + name, "[anon:", 6) == 0);
    return true;
}

int file_mappings_read(FILE *maps, struct file_mappings *ret_mappings)
{
    char *line = NULL;
    size_t room = 0;
    int error = 0;
    ssize_t length;
    *ret_mappings = (struct file_mappings){0};
    while (!error && (length = getline(&line, &room, maps)) > 0) {
        struct file_mapping one;
        if (line[length - 1] == '\n')
            line[length - 1] = '\0';
        if (parse_line(line, &one))
            error = add_mapping(ret_mappings, &one);
    }
    if (!error && ferror(maps))
        error = -EIO;
    free(line);
    return error;
}

void file_mappings_free(struct file_mappings *mappings)
{
    free(mappings->all);
    *mappings = (struct file_mappings){0};
}

// --- the parts of one file ---

static int add_piece(struct file_memory *memory, const struct file_piece *piece)
{
    if (memory->count == memory->room) {
        size_t room = memory->room ? 2 * memory->room : 64;
        struct file_piece *all = reallocarray(memory->piece, room, sizeof(*all));
        if (!all)
            return -ENOMEM;
        memory->piece = all;
        memory->room = room;
    }
    memory->piece[memory->count++] = *piece;
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct file_piece *left = a;
    const struct file_piece *right = b;
    return left->offset < right->offset ? -1 : left->offset > right->offset;
}

static int out_of_memory(struct fl_error *ret_error)
{
    return fl_fail(ret_error, -ENOMEM, "cannot be noted");
}

static int collect(const struct file_mappings *mappings, const struct file_mapping *of,
                   uint64_t bytes, struct file_memory *memory, struct fl_error *ret_error)
{
    for (size_t i = 0; i < mappings->count; i++) {
        const struct file_mapping *one = &mappings->all[i];
        bool reads = one->shared && !one->writable; // that is no guest's
        if (one->device != of->device || one->inode != of->inode || reads)
            continue;
        if (one->shared)
            return fl_fail_plain(ret_error, -EINVAL,
                                 "maps it shared: what the guest writes is in the file itself, and "
                                 "not in memory of its own");
        struct file_piece piece = {.start = one->start, .end = one->end, .offset = one->offset};
        if (piece.offset >= bytes || piece.end - piece.start > bytes - piece.offset)
            return fl_fail_plain(ret_error, -EINVAL, "maps it beyond its end");
        if (add_piece(memory, &piece) < 0)
            return out_of_memory(ret_error);
    }
    if (memory->count > 1)
        qsort(memory->piece, memory->count, sizeof(memory->piece[0]), by_offset);
    return 0;
}

// The first mapping that begins at the address or behind it.
static size_t first_from(const struct file_mappings *mappings, uint64_t address)
{
    size_t low = 0;
    size_t high = mappings->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (mappings->all[middle].start < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool can_be_guest(const struct file_mapping *one)
{
    return one->plain && one->writable && !one->shared;
}

// How many bytes of anonymous memory that can be written to lie right behind an address; or right
// before it.
static uint64_t anonymous_behind(const struct file_mappings *mappings, uint64_t address)
{
    uint64_t end = address;
    for (size_t i = first_from(mappings, address); i < mappings->count; i++) {
        const struct file_mapping *one = &mappings->all[i];
        if (one->start != end || !can_be_guest(one))
            break;
        end = one->end;
    }
    return end - address;
}

static uint64_t anonymous_before(const struct file_mappings *mappings, uint64_t address)
{
    uint64_t start = address;
    for (size_t i = first_from(mappings, address); i > 0; i--) {
        const struct file_mapping *one = &mappings->all[i - 1];
        if (one->end != start || !can_be_guest(one))
            break;
        start = one->start;
    }
    return address - start;
}

// A part of the file that nothing maps, and what is mapped beside it.
struct gap {
    uint64_t offset;
    uint64_t bytes;
    const struct file_piece *left; // NULL: it is at the file's end
    const struct file_piece *right;
};

// How much of it lies behind the left neighbour; the rest is before the right one. False: it is not
// certain. There must be just as much anonymous memory as is missing: with more of it, some is
// another's, and nothing says which.
static bool divide(const struct file_mappings *mappings, const struct gap *gap, uint64_t *ret_left)
{
    uint64_t behind = gap->left ? anonymous_behind(mappings, gap->left->end) : 0;
    uint64_t before = gap->right ? anonymous_before(mappings, gap->right->start) : 0;
    bool one_region = gap->left && gap->right && gap->left->end + gap->bytes == gap->right->start;
    *ret_left = behind;
    if (one_region) // what lies behind the one is what lies before the other
        return behind == gap->bytes;
    return behind + before == gap->bytes;
}

static int fill_gap(const struct file_mappings *mappings, const struct gap *gap,
                    struct file_memory *memory, struct fl_error *ret_error)
{
    uint64_t left = 0;
    if (!divide(mappings, gap, &left))
        return fl_fail_plain(ret_error, -EINVAL,
                             "has nothing mapped, or it is not certain what, where bytes %" PRIu64
                             " to %" PRIu64 " of it would be",
                             gap->offset, gap->offset + gap->bytes);
    // Copied first: adding may move the neighbours.
    uint64_t at = gap->left ? gap->left->end : 0;
    uint64_t end = gap->right ? gap->right->start : 0;
    struct file_piece behind = {at, at + left, gap->offset, true};
    struct file_piece before = {end - (gap->bytes - left), end, gap->offset + left, true};
    if ((left > 0 && add_piece(memory, &behind) < 0) ||
        (left < gap->bytes && add_piece(memory, &before) < 0))
        return out_of_memory(ret_error);
    return 0;
}

static int check_twice(const struct file_piece *left, uint64_t offset, struct fl_error *ret_error)
{
    uint64_t end = left->offset + (left->end - left->start);
    if (offset >= end)
        return 0;
    return fl_fail_plain(ret_error, -EINVAL, "maps bytes %" PRIu64 " to %" PRIu64 " of it twice",
                         offset, end);
}

int file_mappings_pieces(const struct file_mappings *mappings, const struct file_mapping *of,
                         uint64_t bytes, struct file_memory *memory, struct fl_error *ret_error)
{
    memory->count = 0;
    int error = collect(mappings, of, bytes, memory, ret_error);
    size_t mapped = memory->count;
    uint64_t at = 0;
    for (size_t i = 0; i <= mapped && !error; i++) {
        const struct file_piece *left = i > 0 ? &memory->piece[i - 1] : NULL;
        const struct file_piece *right = i < mapped ? &memory->piece[i] : NULL;
        uint64_t offset = right ? right->offset : bytes;
        uint64_t next = right ? right->offset + (right->end - right->start) : bytes;
        if (left)
            error = check_twice(left, offset, ret_error);
        if (!error && offset > at) {
            struct gap gap = {at, offset - at, left, right};
            error = fill_gap(mappings, &gap, memory, ret_error);
        }
        at = next;
    }
    if (!error && memory->count > mapped)
        qsort(memory->piece, memory->count, sizeof(memory->piece[0]), by_offset);
    return error;
}
