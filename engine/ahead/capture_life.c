// SPDX-License-Identifier: Apache-2.0
//
// Making a capture, and what of it others may look at.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/ahead/capture.h"
#include "engine/ahead/capture_internal.h"
#include "engine/base/bitmap.h"
#include "engine/base/dontdump.h"
#include "engine/vm/vm.h"

enum { ALIGN = 4096 };

static uint64_t align_up(uint64_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

// Of a size that nobody changes: a reader that cut it off would have its writer fail.
static int new_memfd(const char *name, uint64_t bytes, int *ret_fd)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)bytes) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    *ret_fd = fd;
    return 0;
}

static int make_board(struct fl_capture *capture, const struct fl_layout *layout)
{
    uint64_t image_pages = fl_layout_file_end(layout) >> FL_PAGE_SHIFT;
    uint64_t map_bytes = align_up(fl_bitmap_bytes(image_pages));
    uint64_t first = align_up(sizeof(struct fl_capture_board));
    uint64_t total = first + 3 * map_bytes;
    int error = new_memfd("faultline-capture-board", total, &capture->board_fd);
    if (error)
        return error;
    if (fallocate(capture->board_fd, 0, 0, (off_t)total) != 0)
        return -errno;
    void *map = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED, capture->board_fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    fl_dontdump(map, total);
    struct fl_capture_board *board = capture->board = map;
    board->magic = FL_CAPTURE_MAGIC;
    board->version = FL_CAPTURE_VERSION;
    board->page_shift = layout->page_shift;
    board->image_pages = image_pages;
    board->total_bytes = capture->board_bytes = total;
    board->done_offset = first;
    board->data_offset = first + map_bytes;
    board->zero_offset = first + 2 * map_bytes;
    capture->board_done = (uint64_t *)((char *)map + board->done_offset);
    capture->board_data = (uint64_t *)((char *)map + board->data_offset);
    capture->board_zero = (uint64_t *)((char *)map + board->zero_offset);
    // What no region has is as in the parent.
    fl_bits_set(capture->board_done, 0, image_pages);
    for (uint32_t i = 0; i < layout->regions; i++)
        fl_bits_clear(capture->board_done, layout->region[i].offset >> FL_PAGE_SHIFT,
                      layout->region[i].bytes >> FL_PAGE_SHIFT);
    return new_memfd("faultline-capture", image_pages << FL_PAGE_SHIFT, &capture->buffer_fd);
}

static int make_maps(struct fl_capture *capture)
{
    uint64_t **const map[] = {&capture->done, &capture->unarmed, &capture->changed,
                              &capture->doubtful, &capture->owed};
    for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++) {
        *map[i] = calloc(1, fl_bitmap_bytes(capture->pages));
        if (!*map[i])
            return -ENOMEM;
    }
    capture->bounce = malloc(FL_CAPTURE_BOUNCE);
    return capture->bounce ? 0 : -ENOMEM;
}

static void capture_free(struct fl_capture *capture)
{
    if (capture->board)
        munmap(capture->board, capture->board_bytes);
    if (capture->board_fd >= 0)
        close(capture->board_fd);
    if (capture->buffer_fd >= 0)
        close(capture->buffer_fd);
    if (capture->fdinfo >= 0)
        close(capture->fdinfo);
    if (capture->memory >= 0)
        close(capture->memory);
    free(capture->done);
    free(capture->unarmed);
    free(capture->changed);
    free(capture->doubtful);
    free(capture->owed);
    free(capture->bounce);
    free(capture);
}

int fl_capture_new(const struct fl_vm *vm, const struct fl_capture_wish *wish,
                   struct fl_capture **ret_capture, struct fl_error *ret_error)
{
    const struct fl_layout *layout = &vm->state->layout;
    if (layout->pages == 0)
        return fl_fail_plain(ret_error, -EINVAL, "VM %llu has no memory",
                             (unsigned long long)vm->id);
    struct fl_capture *capture = calloc(1, sizeof(*capture));
    int error = -ENOMEM;
    if (capture) {
        atomic_init(&capture->refs, 1);
        capture->board_fd = capture->buffer_fd = capture->fdinfo = capture->memory = -1;
        capture->tell = wish->tell;
        capture->arg = wish->arg;
        capture->flags = wish->flags;
        capture->pages = layout->pages;
        capture->ahead_units = wish->ahead_bytes >> FL_PAGE_SHIFT;
        CDS_INIT_LIST_HEAD(&capture->task.in_worker);
        error = make_board(capture, layout);
    }
    if (!error)
        error = make_maps(capture);
    if (error) {
        if (capture)
            capture_free(capture);
        return fl_fail(ret_error, error, "there is no room for a capture of VM %llu",
                       (unsigned long long)vm->id);
    }
    *ret_capture = capture;
    return 0;
}

struct fl_capture *fl_capture_ref(struct fl_capture *capture)
{
    atomic_fetch_add(&capture->refs, 1);
    return capture;
}

void fl_capture_unref(struct fl_capture *capture)
{
    if (capture && atomic_fetch_sub(&capture->refs, 1) == 1)
        capture_free(capture);
}

int fl_capture_board_fd(const struct fl_capture *capture)
{
    return capture->board_fd;
}

int fl_capture_buffer_fd(const struct fl_capture *capture)
{
    return capture->buffer_fd;
}

uint64_t fl_capture_granted(const struct fl_capture *capture)
{
    return capture->flags;
}

const char *fl_capture_parent(const struct fl_capture *capture)
{
    return capture->parent;
}
