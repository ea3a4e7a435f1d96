// SPDX-License-Identifier: Apache-2.0
//
// The reads of extents that are on their way: a fixed number of them, each with a buffer while it
// is in flight, through io_uring or, where that is not allowed, through the reader threads.
//
// An extent is free, then planned (both in lists of the read-ahead's thread), then in flight. In
// flight it belongs to its read (the ring, or one reader thread), then to its helpers: reader
// threads that bring its parts, one frame at a time. The last helper mails it back, and it is free.
// Each part comes with a reference to its load, which the helper that takes its turn gives up.
//
// All functions are for the read-ahead's thread, which never blocks in them, but in
// fl_extent_reads_turn() if it is to wait.
#ifndef FAULTLINE_CACHE_EXTENT_READS_H
#define FAULTLINE_CACHE_EXTENT_READS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <urcu/list.h>

#include "engine/base/io_pool.h"
#include "engine/base/mailbox.h"
#include "engine/cache/extent.h"
#include "engine/cache/frame_load.h"
#include "engine/cache/uring.h"

enum {
    FL_EXTENT_READS = 128,          // extents: parts that are looked at together
    FL_EXTENT_READS_IN_FLIGHT = 32, // being read or decompressed, each with a buffer
    FL_EXTENT_HELPERS = 4,
};

struct fl_extent_job {
    struct fl_io_job job;
    struct fl_extent_read *extent;
};

struct fl_extent_read {
    struct cds_list_head link; // free or planned
    struct fl_mail mail;
    struct fl_extent_reads *reads;
    int fd;
    uint32_t bytes;
    uint64_t offset;
    uint32_t done;   // bytes read so far
    int error;       // why it did not come
    uint8_t *buffer; // while it is in flight
    unsigned parts;
    struct fl_part *part[FL_EXTENT_FRAMES]; // with a reference to the load of each
    _Atomic unsigned next;                  // part for a helper to bring
    _Atomic unsigned running;               // helpers
    struct fl_extent_job reader;            // without io_uring
    struct fl_extent_job helper[FL_EXTENT_HELPERS];
};

struct fl_extent_reads {
    struct fl_cache *cache;
    struct fl_mailbox *mailbox; // of the thread
    struct fl_uring *ring;      // NULL: the reader threads read
    struct cds_list_head free;
    unsigned free_extents;
    unsigned in_flight;
    size_t bytes_in_flight;
    unsigned buffers;
    uint8_t *buffer[FL_EXTENT_READS_IN_FLIGHT]; // not in use
    struct fl_io_job idle_job;
    struct fl_mail idle_mail;
    bool idle_asked; // the job is in the pool, or its mail on its way
    bool used;       // a read has begun since
    struct fl_extent_read extent[FL_EXTENT_READS];
};

// `reads` is zeroed; the mailbox is that of the thread, ready. All extents are free.
void fl_extent_reads_init(struct fl_extent_reads *reads, struct fl_cache *cache,
                          struct fl_mailbox *mailbox);
// When none is in flight.
void fl_extent_reads_fini(struct fl_extent_reads *reads);

// A free extent, which is the caller's then; there is one.
struct fl_extent_read *fl_extent_reads_take(struct fl_extent_reads *reads);
// Back to the free ones: one without parts.
void fl_extent_reads_put(struct fl_extent_reads *reads, struct fl_extent_read *extent);
// Whether a read of so many bytes may begin now.
bool fl_extent_reads_have_room(const struct fl_extent_reads *reads, uint32_t bytes);
// Begins to read the extent: fd, bytes, offset and parts are set.
void fl_extent_reads_start(struct fl_extent_reads *reads, struct fl_extent_read *extent);
// With io_uring: looks for reads that have ended. True if any has.
bool fl_extent_reads_turn(struct fl_extent_reads *reads);
// Waits until there is mail, or a read has ended.
void fl_extent_reads_wait(struct fl_extent_reads *reads);
// The thread is about to wait, and none is in flight: the memory of the buffers goes back if no
// read begins for a second. Until then it is warm.
void fl_extent_reads_idle(struct fl_extent_reads *reads);
// It goes back now, of those that are not in use.
void fl_extent_reads_free_buffers(struct fl_extent_reads *reads);

#endif
