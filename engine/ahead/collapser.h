// SPDX-License-Identifier: Apache-2.0
//
// The thread that puts pages together (host/huge_collapse.h). Such a call takes a millisecond, or
// for as long as another thread holds the VM's mmap lock: no worker is to wait for it. One range at
// a time in the whole engine, and no more than half of the time.
//
// The call changes no byte and fills no hole, whoever serves the VM meanwhile: a thread of an
// engine that has died may still be within one, and its successor need not know.
#ifndef FAULTLINE_AHEAD_COLLAPSER_H
#define FAULTLINE_AHEAD_COLLAPSER_H

#include <stdint.h>

#include "engine/base/mailbox.h"

struct fl_collapse_job;
struct fl_collapser;
struct fl_shard;
struct fl_vm;

// In the thread of the shard that has posted it. The job may be freed.
typedef void fl_collapse_done(struct fl_shard *shard, struct fl_vm *vm, int error, uint64_t ns);

// Its life is that of the message, not of the VM: the VM may go first.
struct fl_collapse_job {
    struct fl_mail mail;
    struct fl_mailbox *box; // where the answer goes
    struct fl_vm *vm;       // NULL once nobody waits for it; owner only
    fl_collapse_done *done;
    int pidfd; // its own
    uint64_t address;
    int error;
    uint64_t ns;
};

// Control thread. `nice`: as the workers': whoever waits for the VM's lock waits for this thread.
// NULL: no memory.
struct fl_collapser *fl_collapser_new(int nice);
// Control thread. Starts the thread, unless it runs: before the first VM that may post. -ENOMEM,
// -EMFILE, -EAGAIN: none can.
int fl_collapser_need(struct fl_collapser *collapser);
// Any thread that has a mailbox. `pidfd` stays the caller's. -ENOMEM, -EMFILE.
int fl_collapser_post(struct fl_collapser *collapser, struct fl_mailbox *box, struct fl_vm *vm,
                      int pidfd, uint64_t address, fl_collapse_done *done,
                      struct fl_collapse_job **ret_job);
// Any thread. Why no range of any VM can be put together, as -errno; 0: nothing is known against
// it.
int fl_collapser_refused(const struct fl_collapser *collapser);
// Control thread; waits for the call that runs. NULL is a no-op.
void fl_collapser_free(struct fl_collapser *collapser);

#endif
