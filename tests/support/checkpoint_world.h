// SPDX-License-Identifier: Apache-2.0
//
// A world (world.h) with a mini-Firecracker in it, of which checkpoints are made. For Criterion:
// failures are assertions.
#ifndef FAULTLINE_TESTS_SUPPORT_CHECKPOINT_WORLD_H
#define FAULTLINE_TESTS_SUPPORT_CHECKPOINT_WORLD_H

#include "tests/support/mini_firecracker.h"
#include "tests/support/world.h"

enum { CHECKPOINT_TEXT = 8192, CHECKPOINT_ARGS = 24 };

struct checkpoint_world {
    struct world *world;
    struct mini_firecracker *mini;
    struct client vm;
    pid_t pid; // of the VM
    char api[2 * TEST_PATH];
    char meetings[2 * TEST_PATH]; // what --fifo-dir is given
    char control[2 * TEST_PATH];
    char number[24]; // what names the VM to the command: pid:N
};

// Packs a memory of so many bytes and serves it. Then the VM can be changed, and started.
struct checkpoint_world *checkpoint_world_make(enum world_memory kind, uint64_t bytes);
// The same, and the memory file is so much longer: a hole.
struct checkpoint_world *checkpoint_world_make_longer(enum world_memory kind, uint64_t bytes,
                                                      uint64_t longer);
void checkpoint_world_start(void);
// The VM goes on, nothing is left, its memory is right, and the server ends well.
void checkpoint_world_stop(void);
// For .fini.
void checkpoint_world_close(void);

// Runs `faultline VERB VM --control ... --api ... --fifo-dir ... EXTRA` to its end. Its status;
// what it says is in text.
int checkpoint_do(const char *verb, char text[CHECKPOINT_TEXT], const char *const *extra);
// Begins one, in a process group of its own; its output goes to a file; a checkpoint called `name`,
// with --json.
pid_t checkpoint_begin_verb(const char *verb, const char *const *extra, const char *output);
pid_t checkpoint_begin(const char *name, const char *const *extra, const char *output);
// Waits for its end: its status, 128 + signal.
int checkpoint_ended(pid_t pid);

// No checkpoint has left a file behind, the VM runs, and none of its pages is write-protected.
void checkpoint_left_nothing(void);
// The image is in the store and is what the memory was at the last moment; it is not there.
void checkpoint_image_is_right(const char *name);
bool checkpoint_has_image(const char *name);
// A VM is restored from it: all of its memory is that of the moment.
void checkpoint_restores(const char *name);
// Starts a VM that is restored there, and touches all pages, in random order or in their own: each
// must be that of the moment.
void checkpoint_clone(struct client *client, const char *socket, bool in_order);

#endif
