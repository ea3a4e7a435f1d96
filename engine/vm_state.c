// SPDX-License-Identifier: Apache-2.0
#include "engine/vm_state.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/bitmap.h"

enum { ALIGN = 4096 };

static uint64_t align_up(uint64_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

// NULL with errno set.
static struct fl_vm_state *map_new(uint64_t id, uint64_t bytes, int *ret_fd)
{
    char name[32];
    snprintf(name, sizeof(name), "faultline-vm-%llu", (unsigned long long)id);
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0)
        return NULL;
    void *map = MAP_FAILED;
    if (ftruncate(fd, (off_t)bytes) == 0)
        map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        int error = errno;
        close(fd);
        errno = error;
        return NULL;
    }
    *ret_fd = fd;
    return map;
}

int fl_vm_state_create(uint64_t id, int64_t pid, const char *image, const struct fl_layout *layout,
                       int *ret_fd, struct fl_vm_state **ret_state)
{
    uint64_t map_bytes = align_up(fl_bitmap_bytes(layout->pages));
    uint64_t removed = align_up(sizeof(struct fl_vm_state));
    uint64_t total = removed + 2 * map_bytes;
    struct fl_vm_state *state = map_new(id, total, ret_fd);
    if (!state)
        return -errno;
    state->version = FL_VM_STATE_VERSION;
    state->bytes = sizeof(*state);
    state->id = id;
    state->pid = pid;
    state->removed_offset = removed;
    state->installed_offset = removed + map_bytes;
    state->total_bytes = total;
    snprintf(state->image, sizeof(state->image), "%s", image);
    state->layout = *layout;
    state->magic = FL_VM_STATE_MAGIC;
    *ret_state = state;
    return 0;
}

void fl_vm_state_unmap(struct fl_vm_state *state)
{
    munmap(state, state->total_bytes);
}
