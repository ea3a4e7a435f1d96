// SPDX-License-Identifier: Apache-2.0
#include "engine/rescue/placement.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/rescue/placement_solve.h"

// So many samples must agree on a shift for it to count: a guest copies pages, a few at a time.
enum { VOTES = 8 };

struct votes {
    uint64_t *shift; // each that has enough votes, once, sorted
    size_t count;
};

static bool tells(const struct fl_match *match)
{
    return match->places == 1;
}

static uint64_t shift_of(const struct fl_placement_of *of, size_t i)
{
    return (of->match[i].page << FL_PAGE_SHIFT) - of->samples->sample[i].address;
}

static int by_number(const void *a, const void *b)
{
    uint64_t one = *(const uint64_t *)a;
    uint64_t other = *(const uint64_t *)b;
    return one < other ? -1 : one > other;
}

// --- which shifts there are ---

static size_t keep_frequent(uint64_t *shift, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count;) {
        size_t same = 1;
        while (i + same < count && shift[i + same] == shift[i])
            same++;
        if (same >= VOTES)
            shift[kept++] = shift[i];
        i += same;
    }
    return kept;
}

static int count_votes(const struct fl_placement_of *of, struct votes *votes)
{
    votes->shift = malloc((of->samples->count + 1) * sizeof(*votes->shift));
    if (!votes->shift)
        return -ENOMEM;
    for (size_t i = 0; i < of->samples->count; i++) {
        if (tells(&of->match[i]))
            votes->shift[votes->count++] = shift_of(of, i);
    }
    qsort(votes->shift, votes->count, sizeof(*votes->shift), by_number);
    votes->count = keep_frequent(votes->shift, votes->count);
    return votes->count > 0 ? 0 : -ENOENT;
}

static bool has_votes(const struct votes *votes, uint64_t shift)
{
    return bsearch(&shift, votes->shift, votes->count, sizeof(shift), by_number) != NULL;
}

// --- pieces ---

// Samples in a row that agree.
struct run {
    struct fl_piece piece;
    size_t votes;
};

struct pieces {
    const struct fl_placement_of *of;
    const struct votes *votes;
    struct run *run; // of one range
    size_t runs;
    struct fl_piece *piece; // of all
    size_t count;
};

static void add_vote(struct pieces *pieces, size_t range, uint64_t shift, uint64_t address)
{
    struct run *last = pieces->runs > 0 ? &pieces->run[pieces->runs - 1] : NULL;
    if (!last || last->piece.shift != shift) {
        last = &pieces->run[pieces->runs++];
        *last = (struct run){.piece = {.range = range, .shift = shift, .first = address}};
    }
    last->piece.last = address;
    last->votes++;
}

// A few pages that are the image's at another place, amid those that are not: the guest's own copy.
// Where all there is are a few pages, they tell if they agree.
static void keep_runs(struct pieces *pieces)
{
    size_t most = 0;
    size_t first = pieces->count;
    for (size_t i = 0; i < pieces->runs; i++)
        most = pieces->run[i].votes > most ? pieces->run[i].votes : most;
    if (most < VOTES && pieces->runs > 1)
        return;
    for (size_t i = 0; i < pieces->runs; i++) {
        const struct run *run = &pieces->run[i];
        struct fl_piece *last = pieces->count > first ? &pieces->piece[pieces->count - 1] : NULL;
        if (run->votes < VOTES && pieces->runs > 1)
            continue;
        if (last && last->shift == run->piece.shift)
            last->last = run->piece.last;
        else
            pieces->piece[pieces->count++] = run->piece;
    }
}

// Samples and ranges are both in the order of memory.
static void cut_ranges(struct pieces *pieces)
{
    const struct fl_placement_of *of = pieces->of;
    size_t i = 0;
    for (size_t range = 0; range < of->ranges; range++) {
        uint64_t end = of->range[range].start + of->range[range].bytes;
        pieces->runs = 0;
        for (; i < of->samples->count && of->samples->sample[i].address < end; i++) {
            if (tells(&of->match[i]) && has_votes(pieces->votes, shift_of(of, i)))
                add_vote(pieces, range, shift_of(of, i), of->samples->sample[i].address);
        }
        keep_runs(pieces);
    }
}

// --- as a layout ---

static int by_offset(const void *a, const void *b)
{
    const struct fl_region *one = a;
    const struct fl_region *other = b;
    return one->offset < other->offset ? -1 : one->offset > other->offset;
}

int fl_placement_layout(const struct fl_placement_of *of, const struct fl_piece *piece,
                        size_t pieces, bool over_holes, struct fl_layout *ret_layout)
{
    const char *reason = NULL;
    struct fl_layout layout = {.page_shift = fl_page_shift(of->range[0].page_bytes)};
    struct fl_region *last = NULL;
    for (size_t i = 0; i < pieces; i++) {
        uint64_t offset = piece[i].start + piece[i].shift;
        bool follows = last && last->offset - last->base == piece[i].shift;
        if (follows && (over_holes || last->base + last->bytes == piece[i].start)) {
            last->bytes = piece[i].start + piece[i].bytes - last->base;
            continue;
        }
        if (layout.regions == FL_REGIONS_MAX)
            return -E2BIG;
        last = &layout.region[layout.regions++];
        *last = (struct fl_region){piece[i].start, piece[i].bytes, offset, 0};
    }
    qsort(layout.region, layout.regions, sizeof(*layout.region), by_offset);
    if (fl_layout_finish(&layout, &reason) != 0 || fl_layout_file_end(&layout) > of->image_bytes)
        return -EINVAL;
    *ret_layout = layout;
    return 0;
}

static uint64_t memory_bytes(const struct fl_placement_of *of)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < of->ranges; i++)
        bytes += of->range[i].bytes;
    return bytes;
}

// The shift of a whole range: that of its one piece, or, if no sample tells of it, of its
// neighbours on both sides, if they agree: a hole has cut their region. *next is the first piece
// that is not before the range. False: it is not as simple as that.
static bool shift_of_range(const struct pieces *pieces, size_t range, const struct fl_piece *before,
                           size_t *next, uint64_t *ret_shift)
{
    if (*next >= pieces->count)
        return false;
    const struct fl_piece *piece = &pieces->piece[*next];
    *ret_shift = piece->shift;
    if (piece->range != range)
        return before && before->shift == piece->shift;
    ++*next;
    return *next >= pieces->count || piece[1].range != range;
}

// Each range is one piece. -ENOENT: not so.
static int as_whole_ranges(const struct fl_placement_of *of, const struct pieces *pieces,
                           struct fl_layout *ret_layout)
{
    struct fl_piece *whole = calloc(of->ranges, sizeof(*whole));
    size_t next = 0;
    int error = whole ? 0 : -ENOMEM;
    for (size_t i = 0; i < of->ranges && !error; i++) {
        whole[i] = (struct fl_piece){.start = of->range[i].start, .bytes = of->range[i].bytes};
        if (!shift_of_range(pieces, i, i > 0 ? &whole[i - 1] : NULL, &next, &whole[i].shift))
            error = -ENOENT;
    }
    if (!error)
        error = fl_placement_layout(of, whole, of->ranges, memory_bytes(of) < of->image_bytes,
                                    ret_layout);
    free(whole);
    return error == -EINVAL ? -ENOENT : error;
}

static int lay_out(const struct fl_placement_of *of, struct pieces *pieces,
                   struct fl_layout *ret_layout)
{
    cut_ranges(pieces);
    if (pieces->count == 0)
        return -ENOENT;
    int error = as_whole_ranges(of, pieces, ret_layout);
    if (error != -ENOENT || memory_bytes(of) != of->image_bytes)
        return error;
    return fl_placement_solve(of, pieces->piece, pieces->count, ret_layout);
}

static bool has_one_page_size(const struct fl_placement_of *of)
{
    uint64_t bytes = of->ranges > 0 ? of->range[0].page_bytes : 0;
    for (size_t i = 1; i < of->ranges; i++) {
        if (of->range[i].page_bytes != bytes)
            return false;
    }
    return fl_page_shift(bytes) != 0;
}

int fl_placement_find(const struct fl_placement_of *of, struct fl_layout *ret_layout)
{
    struct votes votes = {0};
    struct pieces pieces = {.of = of, .votes = &votes};
    if (!has_one_page_size(of))
        return -EINVAL;
    int error = count_votes(of, &votes);
    if (!error) {
        pieces.run = calloc(of->samples->count, sizeof(*pieces.run));
        pieces.piece = calloc(of->samples->count, sizeof(*pieces.piece));
        error = pieces.run && pieces.piece ? lay_out(of, &pieces, ret_layout) : -ENOMEM;
    }
    free(pieces.run);
    free(pieces.piece);
    free(votes.shift);
    return error;
}
