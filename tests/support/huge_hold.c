// SPDX-License-Identifier: Apache-2.0
#include "tests/support/huge_hold.h"

#include <criterion/criterion.h>
#include <sys/mman.h>

#include "tests/support/memory.h"
#include "tests/support/server.h"

enum { MOST = 4096 };

static void *held[MOST];
static unsigned held_pages;

// One by one, as pages of a process that has just ended may still be on their way back.
static bool has_taken(void *arg)
{
    unsigned few = *(unsigned *)arg;
    while (huge_pages_free() > few && held_pages < MOST) {
        void *page = mmap(NULL, HUGE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | 21 << MAP_HUGE_SHIFT, -1, 0);
        if (page == MAP_FAILED)
            return false;
        cr_assert_eq(madvise(page, HUGE, MADV_DONTFORK), 0); // VMMs are children
        *(volatile char *)page = 1;
        held[held_pages++] = page;
    }
    return huge_pages_free() == few;
}

void huge_pages_leave(unsigned few)
{
    cr_assert(wait_until(has_taken, &few));
}

void huge_pages_give_back(void)
{
    while (held_pages > 0)
        munmap(held[--held_pages], HUGE);
}
