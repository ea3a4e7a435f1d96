// SPDX-License-Identifier: Apache-2.0
//
// A table of a file that is read and checked piece by piece, when a piece is first needed, and
// stays then. So to open it costs the same whatever its size.
//
// Who reads a piece reads it into memory of its own, without a lock; the first one that has it
// checked puts it here, and others find it. Pieces never change once they are there: looking at one
// takes no lock.
#ifndef FAULTLINE_SNAPSHOT_LAZY_H
#define FAULTLINE_SNAPSHOT_LAZY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Moves: UNREAD -> THERE.
enum fl_piece_state { FL_PIECE_UNREAD, FL_PIECE_ZERO, FL_PIECE_THERE };

struct fl_lazy {
    void *memory;
    size_t bytes;
    size_t piece_bytes; // of all pieces but the last
    uint64_t pieces;
    atomic_uchar *state; // of each piece; NULL: all are there, from the beginning
};

// All pieces are in `state`. -ENOMEM.
int fl_lazy_init(struct fl_lazy *lazy, size_t bytes, size_t piece_bytes, enum fl_piece_state state);
// Takes over memory of fl_map_memory, with all that is in it.
void fl_lazy_init_whole(struct fl_lazy *lazy, void *memory, size_t bytes);
void fl_lazy_fini(struct fl_lazy *lazy); // also of one that is all zero

size_t fl_lazy_piece_bytes(const struct fl_lazy *lazy, uint64_t piece);
// Before anybody else looks at it.
void fl_lazy_set_unread(struct fl_lazy *lazy, uint64_t piece);
// Puts the checked bytes of a piece there, unless it is there already. Any thread.
void fl_lazy_put(const struct fl_lazy *lazy, uint64_t piece, const void *bytes);

static inline enum fl_piece_state fl_lazy_state(const struct fl_lazy *lazy, uint64_t piece)
{
    // Acquire pairs with the release of fl_lazy_put: who sees THERE sees the bytes.
    return lazy->state ? (enum fl_piece_state)atomic_load_explicit(&lazy->state[piece],
                                                                   memory_order_acquire)
                       : FL_PIECE_THERE;
}

#endif
