// SPDX-License-Identifier: Apache-2.0
//
// The lengths of pieces. Unknown are the length of each piece; known are
//  - of each range: the lengths of its pieces add up to its own;
//  - of each piece that is not blank: what lies before it in the image, less what lies before it in
//    its range, is its shift;
//  - the order of the pieces in memory, and in the image, but for that of the blank ones: those are
//    tried at every place.
// What comes out is taken if every length is positive and holds the samples that told of it, and
// nothing else comes out of another trial.
#include "engine/rescue/placement_solve.h"

#include <errno.h>
#include <string.h>

enum { ROWS = 2 * FL_PIECES_MAX, BLANKS_MAX = 2 };

struct solving {
    const struct fl_placement_of *of;
    struct fl_piece piece[FL_PIECES_MAX]; // in the order of memory
    size_t pieces;
    size_t order[FL_PIECES_MAX]; // of the image: indices of pieces
    long double row[ROWS][FL_PIECES_MAX + 1];
    size_t rows;
    bool found;
    bool several;
    struct fl_layout layout;
};

static uint64_t range_start(const struct solving *solving, size_t piece)
{
    return solving->of->range[solving->piece[piece].range].start;
}

// --- the equations ---

static long double size_of(long double number)
{
    return number < 0 ? -number : number;
}

static void equations_of_ranges(struct solving *solving)
{
    for (size_t range = 0; range < solving->of->ranges; range++) {
        long double *row = solving->row[solving->rows++];
        for (size_t i = 0; i < solving->pieces; i++)
            row[i] = solving->piece[i].range == range;
        row[solving->pieces] = (long double)solving->of->range[range].bytes;
    }
}

static void equation_of_piece(struct solving *solving, size_t piece)
{
    long double *row = solving->row[solving->rows++];
    for (size_t i = 0; solving->order[i] != piece; i++)
        row[solving->order[i]] += 1;
    for (size_t i = 0; i < piece; i++) {
        if (solving->piece[i].range == solving->piece[piece].range)
            row[i] -= 1;
    }
    // The place in the image at which its range would begin; below 0 where others come before it.
    row[solving->pieces] =
        (long double)(int64_t)(range_start(solving, piece) + solving->piece[piece].shift);
}

static void swap_rows(struct solving *solving, size_t a, size_t b)
{
    long double kept[FL_PIECES_MAX + 1];
    memcpy(kept, solving->row[a], sizeof(kept));
    memcpy(solving->row[a], solving->row[b], sizeof(kept));
    memcpy(solving->row[b], kept, sizeof(kept));
}

static void eliminate(struct solving *solving, size_t column)
{
    for (size_t i = 0; i < solving->rows; i++) {
        long double factor = solving->row[i][column] / solving->row[column][column];
        for (size_t k = 0; k <= solving->pieces && i != column && factor != 0; k++)
            solving->row[i][k] -= factor * solving->row[column][k];
    }
}

// False if the lengths do not follow. All coefficients are small whole numbers.
static bool solve_rows(struct solving *solving)
{
    for (size_t column = 0; column < solving->pieces; column++) {
        size_t best = column;
        for (size_t i = column; i < solving->rows; i++) {
            if (size_of(solving->row[i][column]) > size_of(solving->row[best][column]))
                best = i;
        }
        if (best >= solving->rows || size_of(solving->row[best][column]) < 0.01L)
            return false;
        swap_rows(solving, column, best);
        eliminate(solving, column);
    }
    for (size_t i = solving->pieces; i < solving->rows; i++) {
        if (size_of(solving->row[i][solving->pieces]) > 0.5L)
            return false;
    }
    return true;
}

// --- what comes out ---

static bool take_lengths(struct solving *solving)
{
    uint64_t page = solving->of->range[0].page_bytes;
    for (size_t i = 0; i < solving->pieces; i++) {
        struct fl_piece *piece = &solving->piece[i];
        long double bytes = solving->row[i][solving->pieces] / solving->row[i][i];
        if (bytes < (long double)page - 0.5L || bytes > (long double)solving->of->image_bytes)
            return false;
        piece->bytes = (uint64_t)(bytes + 0.5L);
        bool begins = i == 0 || solving->piece[i - 1].range != piece->range;
        piece->start = begins ? range_start(solving, i)
                              : solving->piece[i - 1].start + solving->piece[i - 1].bytes;
        if (piece->bytes % page != 0 ||
            (!piece->blank &&
             (piece->first < piece->start || piece->last >= piece->start + piece->bytes)))
            return false;
    }
    return true;
}

static void take_shifts_of_blanks(struct solving *solving)
{
    uint64_t offset = 0;
    for (size_t i = 0; i < solving->pieces; i++) {
        struct fl_piece *piece = &solving->piece[solving->order[i]];
        if (piece->blank)
            piece->shift = offset - piece->start;
        offset += piece->bytes;
    }
}

static void try_order(struct solving *solving)
{
    struct fl_layout layout;
    memset(solving->row, 0, sizeof(solving->row));
    solving->rows = 0;
    equations_of_ranges(solving);
    for (size_t i = 0; i < solving->pieces; i++) {
        if (!solving->piece[i].blank)
            equation_of_piece(solving, i);
    }
    if (!solve_rows(solving) || !take_lengths(solving))
        return;
    take_shifts_of_blanks(solving);
    if (fl_placement_layout(solving->of, solving->piece, solving->pieces, false, &layout) != 0)
        return;
    solving->several = solving->several ||
                       (solving->found && (layout.regions != solving->layout.regions ||
                                           memcmp(layout.region, solving->layout.region,
                                                  layout.regions * sizeof(*layout.region)) != 0));
    solving->found = true;
    solving->layout = layout;
}

// --- the orders ---

static uint64_t image_place(const struct solving *solving, size_t piece)
{
    return solving->piece[piece].first + solving->piece[piece].shift;
}

// Those that are not blank, by their place. How many.
static size_t order_known(struct solving *solving)
{
    size_t count = 0;
    for (size_t i = 0; i < solving->pieces; i++) {
        size_t at = count;
        if (solving->piece[i].blank)
            continue;
        for (; at > 0 && image_place(solving, solving->order[at - 1]) > image_place(solving, i);
             at--)
            solving->order[at] = solving->order[at - 1];
        solving->order[at] = i;
        count++;
    }
    return count;
}

static void insert_at(size_t *order, size_t count, size_t at, size_t piece)
{
    memmove(&order[at + 1], &order[at], (count - at) * sizeof(*order));
    order[at] = piece;
}

static void remove_at(size_t *order, size_t count, size_t at)
{
    memmove(&order[at], &order[at + 1], (count - at - 1) * sizeof(*order));
}

static void try_all_orders(struct solving *solving)
{
    size_t blank[BLANKS_MAX];
    size_t blanks = 0;
    size_t known = order_known(solving);
    for (size_t i = 0; i < solving->pieces; i++) {
        if (solving->piece[i].blank && blanks < BLANKS_MAX)
            blank[blanks++] = i;
    }
    if (blanks == 0)
        try_order(solving);
    for (size_t one = 0; one <= known && blanks > 0; one++) {
        insert_at(solving->order, known, one, blank[0]);
        if (blanks == 1)
            try_order(solving);
        for (size_t two = 0; two <= known + 1 && blanks > 1; two++) {
            insert_at(solving->order, known + 1, two, blank[1]);
            try_order(solving);
            remove_at(solving->order, known + 2, two);
        }
        remove_at(solving->order, known + 1, one);
    }
}

static void insert_blank(struct solving *solving, size_t at, size_t range)
{
    memmove(&solving->piece[at + 1], &solving->piece[at],
            (solving->pieces - at) * sizeof(*solving->piece));
    solving->piece[at] = (struct fl_piece){.range = range, .blank = true};
    solving->pieces++;
}

static void remove_piece(struct solving *solving, size_t at)
{
    memmove(&solving->piece[at], &solving->piece[at + 1],
            (solving->pieces - at - 1) * sizeof(*solving->piece));
    solving->pieces--;
}

// A blank piece at the end of a range, or between two of its pieces.
static void try_with_a_blank(struct solving *solving)
{
    for (size_t at = 0; at <= solving->pieces; at++) {
        size_t before = at > 0 ? solving->piece[at - 1].range : SIZE_MAX;
        size_t after = at < solving->pieces ? solving->piece[at].range : SIZE_MAX;
        if (after != SIZE_MAX) {
            insert_blank(solving, at, after);
            try_all_orders(solving);
            remove_piece(solving, at);
        }
        if (before != SIZE_MAX && before != after) {
            insert_blank(solving, at, before);
            try_all_orders(solving);
            remove_piece(solving, at);
        }
    }
}

// The pieces, and a blank one for each range that has none. How many blank ones; more than can be
// tried if there is no room.
static size_t take_pieces(struct solving *solving, const struct fl_piece *piece, size_t pieces)
{
    size_t next = 0;
    size_t blanks = 0;
    for (size_t range = 0; range < solving->of->ranges; range++) {
        bool none = next >= pieces || piece[next].range != range;
        if (none)
            insert_blank(solving, solving->pieces, range);
        blanks += none;
        for (; next < pieces && piece[next].range == range; next++)
            solving->piece[solving->pieces++] = piece[next];
    }
    return blanks;
}

int fl_placement_solve(const struct fl_placement_of *of, const struct fl_piece *piece,
                       size_t pieces, struct fl_layout *ret_layout)
{
    struct solving solving = {.of = of};
    if (pieces + of->ranges >= FL_PIECES_MAX)
        return -E2BIG;
    size_t blanks = take_pieces(&solving, piece, pieces);
    if (blanks > BLANKS_MAX)
        return -ENOTUNIQ;
    try_all_orders(&solving);
    if (!solving.found && blanks < BLANKS_MAX)
        try_with_a_blank(&solving);
    if (solving.several)
        return -ENOTUNIQ;
    if (!solving.found)
        return -ENOENT;
    *ret_layout = solving.layout;
    return 0;
}
