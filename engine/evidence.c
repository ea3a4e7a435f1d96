// SPDX-License-Identifier: Apache-2.0
#include "engine/evidence.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/procfs.h"

// LOOKS: positions; ENOUGH: less says nothing; CHANCE: one of so many may be a duplicate.
enum { LOOKS = 16384, ENOUGH = 16, CHANCE = 50 };

// Documentation/admin-guide/mm/pagemap.rst: in memory, or in swap.
#define PAGEMAP_THERE (3ULL << 62)

struct comparison {
    pid_t pid; // of a task that has the memory
    int pagemap;
    const struct fl_image *image;
    struct fl_frame_id id; // of the frame that is in `frame`
    bool any;
    uint8_t *frame;
    struct fl_evidence found;
};

// A page that is not there must not be read: it would raise a fault that nobody answers. (One that
// goes between the look and the read makes us wait, until we are killed or it is served.)
static bool is_there(const struct comparison *work, uint64_t address)
{
    uint64_t entry = 0;
    off_t at = (off_t)(address / FL_PAGE_SIZE * sizeof(entry));
    return pread(work->pagemap, &entry, sizeof(entry), at) == (ssize_t)sizeof(entry) &&
           (entry & PAGEMAP_THERE);
}

static int read_frame(struct comparison *work, struct fl_frame_id id)
{
    if (work->any && work->id.pack == id.pack && work->id.frame == id.frame)
        return 0;
    work->any = false;
    int error = fl_frame_read(work->image, id, work->frame);
    if (error)
        return error;
    work->id = id;
    work->any = true;
    return 0;
}

static int compare(struct comparison *work, uint64_t address, uint64_t image_page)
{
    uint8_t bytes[FL_PAGE_SIZE];
    struct iovec ours = {.iov_base = bytes, .iov_len = sizeof(bytes)};
    // NOLINTNEXTLINE(performance-no-int-to-ptr): an address of theirs
    struct iovec theirs = {.iov_base = (void *)(uintptr_t)address, .iov_len = sizeof(bytes)};
    if (image_page >= fl_image_pages(work->image))
        return 0;
    struct fl_run run = fl_image_run(work->image, image_page, 1);
    if (run.zero || !is_there(work, address))
        return 0;
    if (process_vm_readv(work->pid, &ours, 1, &theirs, 1, 0) != (ssize_t)sizeof(bytes))
        return errno == EFAULT ? 0 : -errno;
    int error = read_frame(work, run.id);
    if (error)
        return error;
    const uint8_t *right = work->frame + (size_t)run.slot * FL_PAGE_SIZE;
    work->found.compared++;
    work->found.same += memcmp(bytes, right, sizeof(bytes)) == 0;
    return 0;
}

static uint64_t memory_bytes(const struct fl_layout *layout)
{
    return layout->pages << layout->page_shift;
}

static int compare_all(struct comparison *work, const struct fl_layout *layout)
{
    uint64_t step = memory_bytes(layout) / FL_PAGE_SIZE / LOOKS;
    int error = 0;
    if (step == 0)
        step = 1;
    for (uint32_t i = 0; i < layout->regions; i++) {
        const struct fl_region *region = &layout->region[i];
        for (uint64_t at = 0; at < region->bytes && !error; at += step * FL_PAGE_SIZE)
            error = compare(work, region->base + at, (region->offset + at) / FL_PAGE_SIZE);
    }
    return error;
}

int fl_evidence(pid_t pid, const struct fl_layout *layout, const struct fl_image *image,
                struct fl_evidence *ret_evidence)
{
    char path[64];
    struct comparison work = {.image = image};
    int error = fl_proc_live_task(pid, &work.pid);
    if (error)
        return error;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/pagemap", (int)pid, (int)work.pid);
    work.pagemap = open(path, O_RDONLY | O_CLOEXEC);
    if (work.pagemap < 0)
        return -errno;
    work.frame = malloc((size_t)FL_FRAME_PAGES_MAX * FL_PAGE_SIZE);
    error = work.frame ? compare_all(&work, layout) : -ENOMEM;
    free(work.frame);
    close(work.pagemap);
    if (!error)
        *ret_evidence = work.found;
    return error;
}

bool fl_evidence_supports(const struct fl_evidence *evidence)
{
    return evidence->compared < ENOUGH || evidence->same > evidence->compared / CHANCE;
}
