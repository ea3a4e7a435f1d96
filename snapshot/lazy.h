// SPDX-License-Identifier: Apache-2.0
//
// A table of a file that is read and checked piece by piece, when a piece is first needed. A piece
// that was read stays. So the cost of opening the table does not depend on its size.
//
// Threads: a thread that needs a piece reads and checks it in memory of its own, without a lock,
// and puts it here with fl_lazy_put, which ignores all but the first copy. A piece never changes
// once it is there, so looking at one takes no lock.
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

// Makes a table with all pieces in `state`. -ENOMEM.
int fl_lazy_init(struct fl_lazy *lazy, size_t bytes, size_t piece_bytes, enum fl_piece_state state);
// Makes a table whose pieces are all there. Takes memory (from fl_map_memory) over.
void fl_lazy_init_whole(struct fl_lazy *lazy, void *memory, size_t bytes);
void fl_lazy_fini(struct fl_lazy *lazy); // a structure of zero bytes is a no-op

size_t fl_lazy_piece_bytes(const struct fl_lazy *lazy, uint64_t piece);
// Call it only while no other thread can see the table.
void fl_lazy_set_unread(struct fl_lazy *lazy, uint64_t piece);
// Copies the checked bytes of a piece into the table, unless the piece is there already. Any
// thread.
void fl_lazy_put(const struct fl_lazy *lazy, uint64_t piece, const void *bytes);

static inline enum fl_piece_state fl_lazy_state(const struct fl_lazy *lazy, uint64_t piece)
{
    // Acquire pairs with the release of fl_lazy_put: a thread that sees THERE sees the bytes.
    return lazy->state ? (enum fl_piece_state)atomic_load_explicit(&lazy->state[piece],
                                                                   memory_order_acquire)
                       : FL_PIECE_THERE;
}

#endif
