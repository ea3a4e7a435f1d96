// SPDX-License-Identifier: Apache-2.0
//
// What will be wanted and is not yet: read far ahead, in large pieces, many at once.
//
// One thread owns it. It is sent loads in the order in which they will be used, joins parts that
// are neighbours on disk to extents, and has many of these on their way (extent_reads.h). When an
// extent has come, reader threads verify and decompress what is in it, several at once, behind
// every read that a VM waits for. If it does not come, its frames are read one by one: a bad sector
// is the trouble of the frames that lie on it.
#ifndef FAULTLINE_CACHE_READ_AHEAD_H
#define FAULTLINE_CACHE_READ_AHEAD_H

struct fl_cache;
struct fl_load;
struct fl_read_ahead;

// Starts the thread. 0 or -errno.
int fl_read_ahead_start(struct fl_cache *cache, struct fl_read_ahead **ret_ahead);
// What is not yet being read fails with -ECANCELED; waits for the rest. Before the readers stop.
void fl_read_ahead_stop(struct fl_read_ahead *ahead);
// When it was stopped, and the readers too: the last of them may still be posting its mail.
void fl_read_ahead_free(struct fl_read_ahead *ahead);

// Any thread, never blocks. Loads linked by `next`; takes over the caller's reference of each.
void fl_read_ahead_ask(struct fl_read_ahead *ahead, struct fl_load *first);

#endif
