// SPDX-License-Identifier: Apache-2.0
//
// The API of a mini-VMM (vmm.h), as Firecracker's is where a checkpoint uses it: one request is
// answered after the other; a pause stops the threads that write to the memory; a snapshot writes
// the state of the devices and then opens the memory file, in which call it waits if that is a
// FIFO. It can be told to fail, to be slow, or to die at each of these steps.
#ifndef FAULTLINE_TESTS_SUPPORT_MINI_FIRECRACKER_H
#define FAULTLINE_TESTS_SUPPORT_MINI_FIRECRACKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "tests/support/memory.h"
#include "tests/support/writers.h"

// Where it is in what it does for a request.
enum mini_step {
    MINI_NOWHERE,
    MINI_PAUSE,   // told to pause; the threads still run
    MINI_PAUSED,  // before it answers that
    MINI_CREATE,  // told to write the state; nothing is written
    MINI_WRITTEN, // the state is written; the memory file not yet opened
    MINI_OPENED,  // the memory file was opened
    MINI_RESUME,  // told to resume; the threads are still paused
    MINI_RESUMED, // before it answers that
    MINI_STEPS,
};

// Shared with the test, which makes it before the VMM is forked.
struct mini_firecracker {
    const char *api;  // its socket; in the jail's root, if there is one
    const char *jail; // NULL: none; else its root, and it becomes the user 10007
    const char *version;
    const struct memory *memory;
    const char *socket;   // the image's
    bool maps_template;   // and that is the socket of one
    const char *file;     // that it maps instead (File backend), and hands nothing over; NULL: none
    bool shares_file;     // maps it shared, as no Firecracker does
    uint64_t lacks_bytes; // of the file's end, which are not mapped
    uint32_t page_bytes;
    unsigned regions; // but for one of virtio-mem (writers->slots)
    enum vmm_protocol protocol;
    bool silent; // it asks for no events of what it gives back
    bool starts_paused;
    struct writers *writers;
    struct writers *moment; // the model, as it was when the state was written
    // Orders of the test:
    _Atomic int dies_at;    // enum mini_step
    _Atomic int waits_at;   // until it is another one
    _Atomic int refuses_at; // with 400
    atomic_bool impatient;  // it does not wait in the open of a FIFO, and says that it failed
    // What it tells:
    _Atomic int at; // enum mini_step, the last
    atomic_bool paused;
    _Atomic unsigned pauses;  // so far
    _Atomic unsigned resumes; //
    _Atomic unsigned creates; //
    uint8_t *base[VMM_REGIONS];
    uint64_t bytes[VMM_REGIONS];
};

// With a model of the memory, of 2 threads that rest.
struct mini_firecracker *mini_new(const struct memory *memory, const char *socket, const char *api);
// The same for pages of another size, before the VM is started.
bool mini_make_writers(struct mini_firecracker *mini, uint32_t page_bytes);
// Then, a region of virtio-mem of so many slots, which is a hole in the memory file behind the
// rest.
bool mini_add_hotplug(struct mini_firecracker *mini, uint32_t slots, uint64_t slot_bytes);
void mini_free(struct mini_firecracker *mini);

// A client_main (client.h), with the mini_firecracker as its argument. Says 'a' when it serves.
// Ends when the writers are told to; then all memory must be as the model says.
int mini_main(int channel, struct client_shared *shared, void *arg);

// The test's side. Waits until it is at this step.
bool mini_comes_to(struct mini_firecracker *mini, enum mini_step step);
// Waits until the VM is not paused and its threads do something.
bool mini_runs(struct mini_firecracker *mini);
// Pages of 4 KiB of it that are write-protected.
long mini_protected(const struct mini_firecracker *mini, pid_t pid);

#endif
