// SPDX-License-Identifier: Apache-2.0
#include "engine/template/template_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/bitmap.h"
#include "engine/base/dontdump.h"

enum { ALIGN = 4096 };

static uint64_t align_up(uint64_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

// As of a VM's state: the bits are large, and to dump a hole of a memfd is to allocate it.
static void leave_out_of_dumps(struct fl_template_state *state)
{
    fl_dontdump((char *)state + state->filled_offset, state->total_bytes - state->filled_offset);
}

int fl_template_state_create(const char *image, uint64_t pages, int *ret_fd,
                             struct fl_template_state **ret_state)
{
    uint64_t offset = align_up(sizeof(struct fl_template_state));
    uint64_t total = offset + align_up(fl_bitmap_bytes(pages));
    void *map = MAP_FAILED;
    int fd = memfd_create("faultline-template-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)total) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        map = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        int error = -errno;
        close(fd);
        return error;
    }
    struct fl_template_state *state = map;
    state->version = FL_TEMPLATE_STATE_VERSION;
    state->bytes = sizeof(*state);
    state->total_bytes = total;
    state->filled_offset = offset;
    state->pages = pages;
    snprintf(state->image, sizeof(state->image), "%s", image);
    state->magic = FL_TEMPLATE_STATE_MAGIC;
    leave_out_of_dumps(state);
    *ret_fd = fd;
    *ret_state = state;
    return 0;
}

static int check_state(const struct fl_template_state *state, uint64_t bytes)
{
    if (state->magic != FL_TEMPLATE_STATE_MAGIC)
        return -EINVAL;
    if (state->version != FL_TEMPLATE_STATE_VERSION || state->bytes != sizeof(*state))
        return -EPROTONOSUPPORT;
    uint64_t offset = align_up(sizeof(*state));
    if (state->total_bytes != bytes || state->filled_offset != offset || state->pages == 0 ||
        state->pages > bytes * 8 || bytes != offset + align_up(fl_bitmap_bytes(state->pages)) ||
        !memchr(state->image, '\0', sizeof(state->image)))
        return -EINVAL;
    return 0;
}

int fl_template_state_open(int fd, struct fl_template_state **ret_state)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    if (!S_ISREG(status.st_mode) || (size_t)status.st_size < sizeof(struct fl_template_state))
        return -EINVAL;
    size_t bytes = (size_t)status.st_size;
    struct fl_template_state *state = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (state == MAP_FAILED)
        return -errno;
    int error = check_state(state, bytes);
    if (error) {
        munmap(state, bytes);
        return error;
    }
    leave_out_of_dumps(state);
    *ret_state = state;
    return 0;
}

void fl_template_state_unmap(struct fl_template_state *state)
{
    munmap(state, state->total_bytes);
}
