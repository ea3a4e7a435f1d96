// SPDX-License-Identifier: Apache-2.0
//
// The part of vmm.h that touches guest memory and says whether it is right.
#include <pthread.h>
#include <stdlib.h>

#include "tests/support/vmm.h"

enum { THREADS_MAX = 32 };

static const char *looks(const uint8_t *bytes, uint64_t length)
{
    return all_zero(bytes, length) ? "zeros" : "other bytes";
}

static void touched(const struct vmm *vmm)
{
    if (vmm->shared)
        atomic_fetch_add(&vmm->shared->progress, 1);
}

void vmm_check(struct vmm *vmm, uint32_t page)
{
    const uint8_t *bytes = vmm_page(vmm, page);
    CHECK(memory_same(vmm->memory, vmm_page_offset(vmm, page), bytes, vmm->page_bytes),
          "page %u of %u has %s", page, vmm->pages, looks(bytes, vmm->page_bytes));
    touched(vmm);
}

void vmm_check_zero(struct vmm *vmm, uint32_t page)
{
    CHECK(all_zero(vmm_page(vmm, page), vmm->page_bytes), "page %u is not zero", page);
    touched(vmm);
}

struct walk {
    pthread_t thread;
    struct vmm *vmm;
    enum vmm_order order;
    unsigned number;
    unsigned step; // 1: every page; the number of threads: its share
};

static uint32_t page_at(const struct walk *walk, const uint32_t *random, uint32_t i)
{
    if (walk->order == VMM_RANDOM)
        return random[i];
    return walk->order == VMM_UP ? i : walk->vmm->pages - 1 - i;
}

static void *walk_pages(void *arg)
{
    struct walk *walk = arg;
    struct vmm *vmm = walk->vmm;
    // Sharing threads need one order; the others each have their own.
    uint32_t *random = random_order(vmm->pages, walk->step > 1 ? 0 : walk->number);
    for (uint32_t i = walk->step > 1 ? walk->number : 0; i < vmm->pages; i += walk->step) {
        uint32_t page = page_at(walk, random, i);
        if (vmm->removed[page])
            vmm_check_zero(vmm, page);
        else
            vmm_check(vmm, page);
    }
    free(random);
    return NULL;
}

void vmm_touch_all(struct vmm *vmm, unsigned threads, enum vmm_order order, bool share)
{
    struct walk walk[THREADS_MAX];
    CHECK(threads > 0 && threads <= THREADS_MAX, "%u threads", threads);
    for (unsigned i = 0; i < threads; i++) {
        walk[i] =
            (struct walk){.vmm = vmm, .order = order, .number = i, .step = share ? threads : 1};
        CHECK(i == 0 || pthread_create(&walk[i].thread, NULL, walk_pages, &walk[i]) == 0,
              "pthread_create");
    }
    walk_pages(&walk[0]); // the main thread, as it touches memory right after the handshake
    for (unsigned i = 1; i < threads; i++)
        pthread_join(walk[i].thread, NULL);
}
