// SPDX-License-Identifier: Apache-2.0
#include "bench/load/mini_guest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/common/clock.h"

// Odd, so that its multiples are all pages of a memory of 2^n pages, in an order without runs.
enum { STRIDE = 7919 };
enum { SLICE_NS = 2000000, CALIBRATION_NS = 20000000, LOOPS = 64 };

static uint64_t page_of(const struct mini_guest *guest, uint64_t write)
{
    return write % guest->set * STRIDE & (guest->pages - 1);
}

static void write_page(struct mini_guest *guest)
{
    uint64_t write = atomic_load_explicit(&guest->written, memory_order_relaxed);
    uint64_t page = page_of(guest, write);
    *(volatile uint64_t *)(guest->memory + page * MINI_PAGE) = write + 1;
    guest->dirty[page / 64] |= 1ULL << page % 64;
    atomic_store_explicit(&guest->written, write + 1, memory_order_release);
}

static void loop(void)
{
    for (unsigned i = 0; i < LOOPS; i++)
        __asm__ volatile("" ::: "memory");
}

static double calibrate(void)
{
    uint64_t count = 0;
    uint64_t start = bench_now_ns();
    uint64_t now = start;
    for (; now - start < CALIBRATION_NS; count++) {
        loop();
        if (count % 16 == 0)
            now = bench_now_ns();
    }
    return (double)count * 1000 / (double)(now - start);
}

// Stays here while it is to be paused, and until that time.
static void rest(struct mini_guest *guest, uint64_t until_ns)
{
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u),
                             .tv_nsec = (long)(until_ns % 1000000000u)};
    pthread_mutex_lock(&guest->lock);
    guest->stopped = true;
    pthread_cond_broadcast(&guest->moved);
    while (guest->wanted || bench_now_ns() < until_ns) {
        if (guest->wanted)
            pthread_cond_wait(&guest->moved, &guest->lock);
        else
            pthread_cond_timedwait(&guest->moved, &guest->lock, &until);
    }
    guest->stopped = false;
    pthread_mutex_unlock(&guest->lock);
}

static bool is_wanted(struct mini_guest *guest)
{
    return atomic_load_explicit(&guest->wanted, memory_order_acquire);
}

static void run_busy(struct mini_guest *guest)
{
    uint64_t loops = (uint64_t)(guest->loops_per_us * 1e6 / (double)guest->per_second) + 1;
    for (;;) {
        for (uint64_t i = 0; i < loops; i++) {
            if (is_wanted(guest))
                rest(guest, 0);
            loop();
        }
        write_page(guest);
    }
}

static void run_paced(struct mini_guest *guest)
{
    uint64_t start = bench_now_ns();
    uint64_t due = 0; // writes since `start`
    for (uint64_t slice = 1;; slice++) {
        uint64_t next = start + slice * SLICE_NS;
        for (uint64_t all = slice * SLICE_NS / 1000 * guest->per_second / 1000000; due < all;
             due++) {
            if (is_wanted(guest))
                rest(guest, 0);
            write_page(guest);
        }
        if (bench_now_ns() > next + 10 * SLICE_NS) { // it was paused: it goes on from here
            start = bench_now_ns();
            due = slice = 0;
        } else {
            rest(guest, next);
        }
    }
}

static void *run(void *arg)
{
    struct mini_guest *guest = arg;
    if (guest->per_second == 0)
        rest(guest, UINT64_MAX / 2);
    else if (guest->busy)
        run_busy(guest);
    else
        run_paced(guest);
    return NULL;
}

int mini_guest_start(struct mini_guest *guest)
{
    pthread_condattr_t monotonic;
    guest->dirty = calloc(guest->pages / 64 + 1, sizeof(*guest->dirty));
    if (!guest->dirty)
        return -ENOMEM;
    if (guest->set == 0 || guest->set > guest->pages)
        guest->set = guest->pages;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&guest->moved, &monotonic);
    pthread_mutex_init(&guest->lock, NULL);
    if (guest->busy)
        guest->loops_per_us = calibrate();
    return -pthread_create(&guest->thread, NULL, run, guest);
}

void mini_guest_pause(struct mini_guest *guest)
{
    pthread_mutex_lock(&guest->lock);
    guest->wanted = true;
    while (!guest->stopped)
        pthread_cond_wait(&guest->moved, &guest->lock);
    pthread_mutex_unlock(&guest->lock);
}

void mini_guest_resume(struct mini_guest *guest)
{
    pthread_mutex_lock(&guest->lock);
    guest->wanted = false;
    pthread_cond_broadcast(&guest->moved);
    pthread_mutex_unlock(&guest->lock);
}

void mini_guest_clean(struct mini_guest *guest)
{
    memset(guest->dirty, 0, (guest->pages / 64 + 1) * sizeof(*guest->dirty));
}

bool mini_guest_is_dirty(const struct mini_guest *guest, uint64_t page)
{
    return guest->dirty[page / 64] >> page % 64 & 1;
}

// The inverse of STRIDE among the residues of 2^64, by Newton's iteration: so it is of 2^n, too.
static uint64_t place_of(uint64_t pages, uint64_t page)
{
    uint64_t inverse = STRIDE;
    for (unsigned i = 0; i < 6; i++)
        inverse *= 2 - STRIDE * inverse;
    return page * inverse & (pages - 1);
}

bool mini_guest_word(uint64_t pages, uint64_t set, uint64_t written, uint64_t page,
                     uint64_t *ret_word)
{
    uint64_t place = place_of(pages, page);
    if (place >= set || place >= written)
        return false;
    *ret_word = place + (written - 1 - place) / set * set + 1;
    return true;
}
