// SPDX-License-Identifier: Apache-2.0
//
// The guest of a mini-VMM: a thread that writes to pages of the VM's memory, one word each, in an
// order that is all over the memory, so that what each page must hold after N writes is known. The
// thread of the API pauses it; while it is paused it touches nothing.
#ifndef FAULTLINE_BENCH_LOAD_MINI_GUEST_H
#define FAULTLINE_BENCH_LOAD_MINI_GUEST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { MINI_PAGE = 4096 };

struct mini_guest {
    uint8_t *memory;
    uint64_t pages;      // of MINI_PAGE, a power of two
    uint64_t per_second; // pages written; 0: none
    uint64_t set;        // pages that are written at all: the first ones of the order
    bool busy;           // computes between two writes, and does not make up for lost time

    // Written by the guest's thread while it is not paused, by the API's while it is.
    _Atomic uint64_t written;
    uint64_t *dirty; // bits of pages: written since mini_guest_clean()

    pthread_mutex_t lock; // of the rest
    pthread_cond_t moved;
    atomic_bool wanted; // the API wants it paused
    bool stopped;       // it writes nothing, and will not before it has looked at `wanted`
    pthread_t thread;
    double loops_per_us;
};

// Starts it, not paused. -ENOMEM, or what pthread_create() says.
int mini_guest_start(struct mini_guest *guest);
// Returns when it has stopped.
void mini_guest_pause(struct mini_guest *guest);
void mini_guest_resume(struct mini_guest *guest);
// Only while it is paused: no page is dirty from now on.
void mini_guest_clean(struct mini_guest *guest);
bool mini_guest_is_dirty(const struct mini_guest *guest, uint64_t page);

// What the first word of a page is after so many writes to a set of so many pages. False: it was
// not written.
bool mini_guest_word(uint64_t pages, uint64_t set, uint64_t written, uint64_t page,
                     uint64_t *ret_word);

#endif
