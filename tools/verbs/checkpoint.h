// SPDX-License-Identifier: Apache-2.0
//
// A checkpoint of a VM that runs: an image of its memory, made while it is served, with the state
// of its devices as a companion.
#ifndef FAULTLINE_TOOLS_VERBS_CHECKPOINT_H
#define FAULTLINE_TOOLS_VERBS_CHECKPOINT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "snapshot/store.h"
#include "tools/cli/about_options.h"
#include "tools/cli/option.h"
#include "tools/verbs/checkpoint_drives.h"
#include "tools/verbs/checkpoint_offer.h"

#define CHECKPOINT_VMSTATE "vmstate" // the companion with the state of the devices

// What the user wants. The texts are not owned.
struct checkpoint_order {
    const char *verb; // for sentences
    const char *control;
    const char *store; // NULL: the server's
    const char *vm;    // as the user names it
    const char *base;  // it maps the memory file of this image, and nobody serves it; NULL: served
    const char *name;
    const char *api;      // NULL: looked for
    const char *qmp;      // it is a QEMU's, whose monitor this is; NULL: a Firecracker's
    const char *fifo_dir; // NULL: looked for
    const char *vmstate;  // a file of the orchestrator's, with `external`; NULL: none
    struct drives drives;
    struct about_labels labels; // with that of the checkpoint itself, once it is packed
    struct offered offered; // names that can be restored while it is still packed; 0: none
    bool live;              // the name is one
    bool leave_paused;      // the VM does not go on
    bool keep_armed;
    bool full;
    bool while_paused;
    bool external;
    bool while_heard; // it ends if nobody reads what it says any more, or is told so; as `external`
    bool json;
    bool replace;
    uint64_t timeout_ms; // of all until it is copied
    uint64_t pause_ms;   // of the pause
};

struct checkpoint_vm {
    uint64_t id; // 0: no server serves it
    pid_t pid;
    char image[FL_NAME_MAX + 1]; // that it was restored from
    char *store;                 // the server's; NULL: it has none
};

struct checkpoint_result {
    struct checkpoint_vm vm;
    struct fl_pack_result pack;
    char parent[FL_NAME_MAX + 1]; // "": none
    bool was_paused;              // the VM was paused before, and still is
    bool left_paused;             // the VM was paused by this command, and still is
    bool kept_armed;              // the next checkpoint copies only what changes from now on
    uint64_t pages;
    uint64_t by_fault;
    uint64_t by_sweep;
    uint64_t write_faults;
    double pause_ms;  // from the order to pause to the answer to that to resume
    double freeze_ms; // of it, until what the image will be was certain
    double copy_ms;
    double seconds;
    char label[64];         // of the image: which Firecracker wrote the state; "": none
    int vmstate;            // the state, as a file without a name; -1: none
    struct fl_offer *offer; // the names' files, to the end of the verb; NULL: none
};

// The options that `checkpoint` and `fork` have both (checkpoint_options.c), and what reads --with.
extern const struct cli_option checkpoint_options[];
const char *checkpoint_take_with(void *arg, const char *text);

// Makes the checkpoint. Returns 0, or -errno and a sentence: then nothing was published, and the VM
// runs on as if nothing had happened, unless the sentence says otherwise. The sentence is empty if
// it is on stderr already. The caller calls checkpoint_end() in any case.
int checkpoint_run(struct checkpoint_order *order, struct checkpoint_result *ret_result,
                   struct fl_error *ret_error);
void checkpoint_end(struct checkpoint_order *order, struct checkpoint_result *result);
// Tells it to the user and to an orchestrator; returns EXIT_FAILED.
int checkpoint_fail(const struct checkpoint_order *order, const struct fl_error *error);

// Says that the server has no store; returns its -errno.
int checkpoint_no_store(const struct checkpoint_order *order, struct fl_error *ret_error);

// Checks what the options say of each other. Returns EXIT_DONE, or EXIT_USAGE after a sentence.
int checkpoint_check(const struct checkpoint_order *order);

// --- finding the VM (checkpoint_vm.c) ---

// The VM with this number, or "pid:N"; with `base`, the latter alone, served or not. Returns 0, or
// -errno and a sentence.
int checkpoint_find_vm(const struct checkpoint_order *order, struct checkpoint_vm *ret_vm,
                       struct fl_error *ret_error);
// "VM 3", or "process 7" where nobody serves it.
enum { CHECKPOINT_VM_TEXT = 32 };
const char *checkpoint_vm_text(const struct checkpoint_vm *vm, char text[CHECKPOINT_VM_TEXT]);
// Where the API of a Firecracker is, by its command line; to be freed. NULL and a sentence: it has
// none, or cannot be looked at.
char *checkpoint_find_api(pid_t pid, struct fl_error *ret_error);

// --- what is printed (checkpoint_say.c) ---

// One event of a checkpoint, as a line of JSON, if that is asked for.
void checkpoint_say(const struct checkpoint_order *order, const char *event);
// The same, but what an orchestrator waits for: then also as text.
void checkpoint_tell(const struct checkpoint_order *order, const char *event);
void checkpoint_say_restorable(const struct checkpoint_order *order, const char *image);
void checkpoint_say_failed(const struct checkpoint_order *order, const char *sentence);
// The result as docs/json.md says; the caller owns it. NULL without memory.
json_t *checkpoint_json(const struct checkpoint_order *order,
                        const struct checkpoint_result *result);
// Prints the result. Returns an exit status.
int checkpoint_print(const struct checkpoint_order *order, const struct checkpoint_result *result);

#endif
