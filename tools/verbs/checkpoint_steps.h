// SPDX-License-Identifier: Apache-2.0
//
// What the files of a checkpoint share: one run of it. checkpoint_run.c has the order of the steps;
// how the VM is paused and goes on is in checkpoint_firecracker.c and checkpoint_qemu.c, and for an
// orchestrator that does it itself in checkpoint_external.c. Main thread. A step returns 0, or
// -errno and a sentence.
#ifndef FAULTLINE_TOOLS_VERBS_CHECKPOINT_STEPS_H
#define FAULTLINE_TOOLS_VERBS_CHECKPOINT_STEPS_H

#include <stdatomic.h>

#include "tools/cli/progress.h"
#include "tools/verbs/capture_line.h"
#include "tools/verbs/checkpoint.h"
#include "tools/verbs/checkpoint_hurry.h"
#include "tools/verbs/checkpoint_meeting.h"
#include "tools/verbs/checkpoint_pack.h"
#include "tools/verbs/firecracker_api.h"

// What an orchestrator says.
struct orchestrator {
    bool over;     // it says nothing more
    bool aborts;   // it has said so
    bool answered; // by the first line that says anything else
    char answer[64];
    char line[64]; // of which a part may have come
    size_t used;
};

struct run {
    struct checkpoint_order *order;
    struct checkpoint_result *result;
    struct fl_store *store;
    struct capture_line line;
    struct capture_pack pack;
    struct hurry hurry;
    struct progress progress;
    struct fl_progress bar;
    uint64_t begun;           // times by fl_now()
    uint64_t deadline;        // of the step that is waited for
    uint64_t paused_at;       // 0: not yet
    uint64_t gives_way_until; // to all others, while pages are copied
    uint64_t offered_at;      // VMs can be restored; 0: not yet
    char vmstate[PATH_MAX];   // its state; "": none
    // Of a Firecracker:
    char *api;
    struct meeting_peer peer;
    struct meeting meeting;
    struct firecracker_request creation;   // answered only when the FIFO was opened
    struct firecracker_request resumption; // sent before that
    bool paused;                           // by this command: it is to be resumed
    // Of an orchestrator:
    struct orchestrator orchestrator;
};

// Waits until reached() says so. Fails with a sentence if the capture, the packing or the user ends
// it, or at run->deadline: "WHAT within N ms".
int run_wait(struct run *run, bool (*reached)(struct run *run), const char *what,
             struct fl_error *ret_error);
// The same without waiting, for a step that waits for something else: whether it is to end.
int run_check(struct run *run, const char *what, struct fl_error *ret_error);
// The order's labels get that of the checkpoint itself.
void run_add_own_label(struct run *run);
// Adds to the sentence of a failure that the VM is still paused, as was ordered.
void run_say_left_paused(struct fl_error *error);
// The pause begins: no step takes longer than the time that it may take.
void run_pause_begins(struct run *run);

// How a VM is stopped and goes on.
struct pauser {
    // Before the capture is asked for: looks whether all that is needed is there.
    int (*prepare)(struct run *run, struct fl_error *ret_error);
    // Pauses the VM, and has its state written. Then nothing writes to its memory.
    int (*stop)(struct run *run, struct fl_error *ret_error);
    // What the image will be is certain: the VM goes on.
    int (*go_on)(struct run *run, struct fl_error *ret_error);
    // After a failure of any of them or in between: the VM goes on, if it does not. May add to the
    // sentence of the failure.
    void (*undo)(struct run *run, struct fl_error *error);
    // Removes what prepare() has made, after success and after failure.
    void (*end)(struct run *run);
};
// Whether who has ordered it is listened to, for what the next two say.
bool checkpoint_has_orchestrator(const struct checkpoint_order *order);
// Its end of what is printed is closed: it has gone, or has given up.
bool checkpoint_is_unheard(const struct checkpoint_order *order);
// Reads what it has said; true: that the checkpoint is to be given up.
bool checkpoint_is_aborted(struct run *run);
extern const struct pauser pauser_firecracker;
extern const struct pauser pauser_qemu;
extern const struct pauser pauser_external;

// All steps from the preparation on, for a VM that maps its memory file (checkpoint_file.c).
int checkpoint_file_steps(struct run *run, const struct pauser *pauser, struct fl_error *ret_error);

#endif
