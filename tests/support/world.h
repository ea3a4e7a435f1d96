// SPDX-License-Identifier: Apache-2.0
//
// What most end-to-end tests need: a memory file, a store with it packed as "image", and a server
// that serves it. For Criterion: failures are assertions; close it in the suite's .fini.
#ifndef FAULTLINE_TESTS_SUPPORT_WORLD_H
#define FAULTLINE_TESTS_SUPPORT_WORLD_H

#include "tests/support/client.h"
#include "tests/support/memory.h"
#include "tests/support/server.h"
#include "tests/support/vmm.h"

enum world_memory { MIXED, DISTINCT, EMPTY };

struct world {
    struct temp temp;
    struct memory memory;
    struct server server;
    const char *file;   // the memory file
    const char *store;  //
    const char *socket; // where a VMM connects
};

// One world a test. `bytes` of memory; nothing runs yet.
struct world *world_make(enum world_memory kind, uint64_t bytes);
void world_close(void);

void world_pack(struct world *world, const char *file, const char *image);
// Packs the memory as "image" and serves it; `extra` may be NULL.
void world_serve(struct world *world, const char *const *extra);
// Another image beside it, of distinct pages, none of which world_make() has made, served: its
// memory, to be freed, and the path of its socket.
void world_add_image(struct world *world, const char *name, uint64_t bytes, struct memory *memory,
                     char socket[2 * TEST_PATH]);
// Serves the file itself. The first of `extra` that are given come before SOCKET and MEMFILE.
void world_handler(struct world *world, const char *const *extra);
// In a client: one region of the world's memory, handed over. Says 'a', awaits 't', touches all.
void world_touch_when_told(const struct world *world, int channel, struct client_shared *shared,
                           unsigned threads);
// In a client: two regions of the world's memory. Says 't' when it is served; touches all of it, a
// page at a time, until it is told 'g', and then once more in another order. Returns 0.
int world_touch_on(const struct world *world, int channel, struct client_shared *shared);
// SIGTERM: it must end with status 0.
void world_stop(struct world *world);

// A number from `faultline status --json`: the first one with this key after `object` ("" for the
// top). -1 if there is none.
long long world_status(const struct world *world, const char *object, const char *key);
// The same of the server that has this control socket.
long long server_status(const char *control, const char *object, const char *key);

// The same of one of its VMs; 0 also for a VM that is not there. And whether its replay, or what
// makes pages of 2 MiB of its working set, is in this state.
long long world_vm_status(const struct world *world, long long vm, const char *object,
                          const char *key);
bool world_vm_huge_is(const struct world *world, long long vm, const char *state);
bool world_vm_replay_is(const struct world *world, long long vm, const char *state);

// Skips the test, loudly, or fails it where CI says that all is there (CI=true).
void need_userfaultfd(void);
void need_huge_pages(unsigned pages);
void need_kvm(void);
void need_transparent_huge(void); // pages, by advice at least
void need_collapse(void);         // MADV_COLLAPSE, Linux 6.1

#endif
