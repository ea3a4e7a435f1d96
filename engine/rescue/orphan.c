// SPDX-License-Identifier: Apache-2.0
#include "engine/rescue/orphan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "engine/vm/handshake.h"

// --- whether a layout is that of this memory ---

static bool range_is_covered(const struct fl_layout *layout, const struct fl_proc_range *range)
{
    uint64_t at = range->start;
    uint64_t page = 0;
    if (range->page_bytes != 1ULL << layout->page_shift)
        return false;
    while (at < range->start + range->bytes) {
        if (!fl_layout_page(layout, at, &page))
            return false;
        const struct fl_region *region = fl_layout_region(layout, page);
        at = region->base + region->bytes;
    }
    return true;
}

bool fl_orphan_covered(const struct fl_orphan *orphan, const struct fl_layout *layout)
{
    for (size_t i = 0; i < orphan->ranges; i++) {
        if (!range_is_covered(layout, &orphan->range[i]))
            return false;
    }
    return orphan->ranges > 0;
}

// --- the layout, if nothing was kept ---

static int range_layout(const struct fl_proc_range *range, struct fl_layout *ret_layout)
{
    const char *reason = NULL;
    struct fl_layout layout = {.page_shift = fl_page_shift(range->page_bytes), .regions = 1};
    if (layout.page_shift == 0)
        return -EINVAL;
    layout.region[0] = (struct fl_region){.base = range->start, .bytes = range->bytes};
    int error = fl_layout_finish(&layout, &reason);
    if (!error)
        *ret_layout = layout;
    return error;
}

uint64_t fl_orphan_bytes(const struct fl_orphan *orphan)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < orphan->ranges; i++)
        bytes += orphan->range[i].bytes;
    return bytes;
}

bool fl_orphan_one_region(const struct fl_orphan *orphan, uint64_t image_bytes,
                          struct fl_layout *ret_layout)
{
    return orphan->ranges == 1 && (image_bytes == 0 || orphan->range[0].bytes == image_bytes) &&
           range_layout(&orphan->range[0], ret_layout) == 0;
}

int fl_orphan_set_regions(struct fl_orphan *orphan, const char *text, struct fl_error *ret_error)
{
    struct fl_layout layout;
    const char *why = NULL;
    int error = fl_handshake_parse(text, strlen(text), &layout, NULL, &why);
    if (error)
        return fl_fail_plain(ret_error, error, "the regions are not valid: %s", why);
    if (!fl_orphan_covered(orphan, &layout))
        return fl_fail_plain(
            ret_error, -EINVAL,
            "the regions leave out memory of pid %d that is registered, or have another page "
            "size",
            (int)orphan->pid);
    orphan->layout = layout;
    orphan->layout_from = FL_LAYOUT_GIVEN;
    return 0;
}

bool fl_orphan_unknowable(const struct fl_orphan *orphan)
{
    return !orphan->state && (orphan->features & UFFD_FEATURE_EVENT_REMOVE);
}

void fl_orphan_close(struct fl_orphan *orphan)
{
    if (orphan->state)
        fl_vm_state_unmap(orphan->state);
    if (orphan->state_fd >= 0)
        close(orphan->state_fd);
    if (orphan->uffd >= 0)
        close(orphan->uffd);
    if (orphan->pidfd >= 0)
        close(orphan->pidfd);
    free(orphan->range);
    free(orphan->holder);
    *orphan = (struct fl_orphan){.pidfd = -1, .uffd = -1, .state_fd = -1};
}
