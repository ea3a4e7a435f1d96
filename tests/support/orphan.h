// SPDX-License-Identifier: Apache-2.0
//
// A VM that its fault handler left behind, and the commands that look at it: what tests of
// `faultline doctor` and `faultline rescue` share. For Criterion: failures are assertions.
#ifndef FAULTLINE_TESTS_SUPPORT_ORPHAN_H
#define FAULTLINE_TESTS_SUPPORT_ORPHAN_H

#include <criterion/criterion.h>
#include <string.h>

#include "tests/support/world.h"

enum { ORPHAN_BYTES = 16 << 20, ORPHAN_ARGS = 24, ORPHAN_THREADS = 2, ORPHAN_OUTPUT = 1 << 16 };

// Of one test.
extern struct world *orphan_world;
extern struct client orphan_client;
extern char orphan_output[ORPHAN_OUTPUT]; // of the last command

// What the VMM tells the test.
struct orphan_told {
    char regions[VMM_TEXT];     // its handshake
    uint8_t *first;             // its first region
    char socket[2 * TEST_PATH]; // of the template
};
extern struct orphan_told *orphan_told;

// For a suite's .init and .fini.
void orphan_begin(void);
void orphan_end(void);

// --- VMs ---

struct orphan_plan {
    uint32_t page_bytes;
    unsigned regions;
    bool swapped; // the regions lie side by side, the second first
    bool
        plugged; // below its memory lies a region that can be plugged in, of which nothing is there
    bool idle;   // it touches nothing before its handler is gone
    bool swaps;  // what it has touched is swapped out
    uint32_t dirt; // of what it has touched, its guest zeroes one page in so many; 0: none
    bool removes;  // gives a part back that it has not touched
    bool shared;   // it maps a template, which gives back the image's bytes
    bool poisoned; // what it has not touched by then is to be poisoned
};

// Touches half of its memory, and says so.
void orphan_start_vmm(const struct orphan_plan *plan);
// Has it touch all of its memory; so many of its threads come to wait.
void orphan_go_on(unsigned waiters);
// A world with a VM whose handler, `faultline handler`, was killed in the middle.
void orphan_make(enum world_memory kind, const struct orphan_plan *plan);

// --- commands ---

// `faultline rescue OPTIONS... PID`, for the server and the store of this test.
int orphan_rescue(pid_t pid, const char *const *options);

#define RESCUE(...) orphan_rescue(orphan_client.pid, (const char *const[]){__VA_ARGS__, NULL})
#define EXPECT_REFUSED(text, ...)                                                                  \
    do {                                                                                           \
        int status_ = RESCUE(__VA_ARGS__);                                                         \
        cr_expect(status_ == 1 && strstr(orphan_output, text), "status %d: %s", status_,           \
                  orphan_output);                                                                  \
    } while (0)
#define EXPECT_DONE(...)                                                                           \
    do {                                                                                           \
        int status_ = RESCUE(__VA_ARGS__);                                                         \
        cr_assert(status_ == 0, "status %d: %s", status_, orphan_output);                          \
    } while (0)

// That the doctor, who is asked until he does, says this.
void expect_doctor(const char *format, ...) __attribute__((format(printf, 1, 2)));
// That the VM ends well, and then the server.
void expect_served(void);

#endif
