// SPDX-License-Identifier: Apache-2.0
//
// The list of what a group of packs has become, in a file in tmp/ from the time the new packs are
// published until all images have their new maps. If the process is killed in between, the next one
// takes the list over, and gives the other images the same packs. Who writes or has taken a list
// holds it locked; nobody waits for that lock. One thread.
#ifndef FAULTLINE_SNAPSHOT_MOVE_LIST_H
#define FAULTLINE_SNAPSHOT_MOVE_LIST_H

#include "snapshot/publish.h"
#include "snapshot/recode.h"

#define FL_MOVES_MOST 64u // in a list

// Writes the list of these moves. The caller ends it, also on an error. -ENOMEM, errors of writing.
int fl_move_list_write(struct fl_store *store, const struct fl_move *moves, uint32_t count,
                       struct fl_temp *ret_list);
// Takes the list of this name in tmp/. Returns how many of its moves are still possible: both packs
// are there, and each page is where the list says, by its identity. The caller ends these
// (fl_move_end) and the list if the result is not negative. -EAGAIN: it is not a list, or it is
// damaged, or a process works on it; -ENOMEM, errors of reading.
int fl_move_list_take(struct fl_store *store, const char *name,
                      struct fl_move ret_moves[FL_MOVES_MOST], struct fl_temp *ret_list);
// Removes the list.
void fl_move_list_end(struct fl_temp *list);
// Leaves the list to the next process.
void fl_move_list_leave(struct fl_temp *list);

#endif
