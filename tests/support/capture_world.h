// SPDX-License-Identifier: Apache-2.0
//
// A world of captures (tests of CONTROL.keeper): a server, VMs that write, read and give back all
// the time, and a capture with the image that it makes and the one that it must be. For Criterion.
#ifndef FAULTLINE_TESTS_SUPPORT_CAPTURE_WORLD_H
#define FAULTLINE_TESTS_SUPPORT_CAPTURE_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/support/capture_client.h"
#include "tests/support/world.h"
#include "tests/support/writers.h"

enum {
    CAPTURED_BYTES = 24 << 20,
    CAPTURED_PAGES = CAPTURED_BYTES / PAGE,
    CAPTURED_REGIONS = 2,
    CAPTURED_VMS = 2,
    OPERATIONS = 2000 // of a VM, before something is looked at
};

// What the client tells the test.
struct guest_place {
    struct vmm_region region[VMM_REGIONS];
    int uffd; // there
};

// One VM of the test.
struct guest {
    struct client client;
    struct writers *writers;
    struct guest_place *place; // shared with the client
    bool silent;               // set before it starts: its userfaultfd has no events
    bool transparent;          // ... and: its memory may be huge pages
};

struct captured {
    struct world *world;
    struct guest guest[CAPTURED_VMS];
    char control[2 * TEST_PATH];
    uint8_t *image; // that a capture makes
    uint8_t *model; // that it must be
};
extern struct captured captured;

// A server and one VM, which is VM 1; `removes` as of writers.h. With captured_end() it is over:
// the VM runs on with the right bytes, and no page of it is protected.
void captured_begin(const char *const *extra, unsigned removes);
void captured_end(void);
// Its two halves: points (points.h) are set between them.
void captured_make(void);
void captured_serve(const char *const *extra, unsigned removes);
// The same but for the server's end, for one that has no keeper any more.
void captured_end_of_vm(void);

// The same, with a VM as Firecracker before 1.12 makes it without a balloon: no event tells what it
// drops.
void captured_begin_silent(unsigned removes);

void guest_start(struct guest *guest, unsigned removes);
// It runs, and no page of it is protected, or will soon be. It never writes to a quarter of its
// pages: only an engine can free those.
void guest_is_free(struct guest *guest);
void guest_end(struct guest *guest);
// Pages of 4 KiB.
long guest_protected(const struct guest *guest);
// Write-protects its first pages behind the server's back, as its own process could: not before it
// was captured.
void guest_protect(const struct guest *guest, unsigned pages);

void connect_capture(struct capture_client *capture);
// The image has the bytes of the file.
void begin_capture(struct capture_client *capture, uint64_t vm, uint64_t flags);
// Pauses the VM, and notes what the image must be.
void pause_guest(struct guest *guest);
// From the beginning to FROZEN, and the VM runs again.
void freeze_capture(struct capture_client *capture, struct guest *guest);
// The image is the model.
void expect_same(const char *when);
// All of it but for the end.
void capture_all(struct capture_client *capture, struct guest *guest, uint64_t vm, uint64_t flags);
// The text of a COMMIT, with a content id of the tests' own.
const char *published_as(const char *name);
void publish(struct capture_client *capture, const char *name);
// A whole capture, of the right bytes.
void capture_works(struct guest *guest, uint64_t vm);

// Where a capture is when something happens to it. At ORDERED the VM is still paused.
enum moment { BEGUN, READY, ORDERED, FROZEN, COPIED, MOMENTS };
void capture_until(struct capture_client *capture, struct guest *guest, enum moment moment);

// Conditions of wait_until().
bool no_capture_runs(void *arg);
bool captures_failed(void *count); // int
bool no_vm_is_left(void *arg);

// SIGKILL, and its successor serves.
void kill_captured_engine(void);

#endif
