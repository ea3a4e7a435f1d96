// SPDX-License-Identifier: Apache-2.0
//
// Packs a capture into the store while its pages come, in a thread of its own. The image appears
// only when capture_pack_allow() was called: a page that is there does not say that the capture was
// right.
#ifndef FAULTLINE_TOOLS_VERBS_CHECKPOINT_PACK_H
#define FAULTLINE_TOOLS_VERBS_CHECKPOINT_PACK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "snapshot/store.h"
#include "tools/verbs/capture_line.h"

struct capture_pack {
    bool running;
    int ended; // an eventfd: readable when the thread has ended
    int told;  // an eventfd: readable when the image is on offer
    pthread_t thread;
    struct fl_store *store;
    const struct capture_line *line;
    struct fl_pack_live live;
    struct fl_pack_options options;
    bool gives_way;
    atomic_bool idle; // its threads are, or were, of SCHED_IDLE
    atomic_bool allowed;
    atomic_bool cancelled;
    atomic_bool offered;         // VMs can be restored
    _Atomic uint64_t bytes_done; // for a bar
    _Atomic uint64_t kept;       // pages that were read, and not punched out at first
    // When the thread has ended:
    int error;
    struct fl_pack_result result;
    struct fl_error why;
};

// Fills in options->live and ->progress, and begins. Nothing else uses the store until it ends.
// What options refer to stays the caller's. gives_way: at a lower priority than the command, as the
// VM runs meanwhile. Returns 0 or -errno.
int capture_pack_start(struct capture_pack *pack, struct fl_store *store,
                       const struct capture_line *line, const struct fl_pack_options *options,
                       bool gives_way);
// The calling thread, and threads that it starts from now on, at that lower priority.
void capture_pack_give_way(void);
// It gives way no more than by being nicer: the guest waits for nothing any more, or the packing
// has waited long enough for what a busy host leaves. To be called now and then from that time on,
// as a thread may only just have begun.
void capture_pack_go_ahead(struct capture_pack *pack);
// All is copied and right: it may publish.
void capture_pack_allow(struct capture_pack *pack);
// It ends as soon as it can, and publishes nothing unless it has already.
void capture_pack_cancel(struct capture_pack *pack);
// Waits for its end. Returns 0, or -errno and a sentence. For one that does not run: what it
// returned before.
int capture_pack_join(struct capture_pack *pack, struct fl_error *ret_error);

#endif
