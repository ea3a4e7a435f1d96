// SPDX-License-Identifier: Apache-2.0
#include "engine/vm/vm_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/bitmap.h"
#include "engine/base/dontdump.h"

enum { ALIGN = 4096 };

static_assert(sizeof(struct fl_vm_state) % ALIGN + sizeof(struct fl_vm_filling) <= ALIGN,
              "there is room behind the structure");

static uint64_t align_up(uint64_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

// A read() into a page that is not in memory fails when a SIGKILL comes meanwhile, and what was
// taken out of the queue for it is lost. Without the right to lock it stays merely unlikely.
static void lock_inbox(const struct fl_vm_state *state)
{
    mlock(state, sizeof(*state));
}

// The bitmaps of a large VM are large, and to dump a hole of a memfd is to allocate it.
static void leave_out_of_dumps(struct fl_vm_state *state)
{
    fl_dontdump((char *)state + state->removed_offset, state->total_bytes - state->removed_offset);
}

// NULL with errno set.
static struct fl_vm_state *map_new(uint64_t id, uint64_t bytes, int *ret_fd)
{
    char name[32];
    snprintf(name, sizeof(name), "faultline-vm-%llu", (unsigned long long)id);
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return NULL;
    void *map = MAP_FAILED;
    if (ftruncate(fd, (off_t)bytes) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
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
    lock_inbox(state);
    leave_out_of_dumps(state);
    *ret_state = state;
    return 0;
}

// The regions of a layout, taken one by one as if they had come in a handshake.
static bool layout_holds(const struct fl_layout *layout)
{
    const char *reason = NULL;
    struct fl_layout checked = *layout;
    if (layout->regions == 0)
        return layout->pages == 0;
    if (layout->regions > FL_REGIONS_MAX || fl_layout_finish(&checked, &reason) != 0 ||
        checked.pages != layout->pages)
        return false;
    for (uint32_t i = 0; i < layout->regions; i++) {
        if (checked.region[i].first_page != layout->region[i].first_page)
            return false;
    }
    return true;
}

static int state_check(const struct fl_vm_state *state, uint64_t bytes)
{
    if (state->magic != FL_VM_STATE_MAGIC)
        return -EINVAL;
    if (state->version != FL_VM_STATE_VERSION || state->bytes != sizeof(*state))
        return -EPROTONOSUPPORT;
    uint64_t map_bytes = align_up(fl_bitmap_bytes(state->layout.pages));
    uint64_t removed = align_up(sizeof(*state));
    if (state->total_bytes != bytes || bytes != removed + 2 * map_bytes ||
        state->removed_offset != removed || state->installed_offset != removed + map_bytes ||
        !memchr(state->image, '\0', sizeof(state->image)) || !layout_holds(&state->layout))
        return -EINVAL;
    return 0;
}

int fl_vm_state_open(int fd, struct fl_vm_state **ret_state)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    if (!S_ISREG(status.st_mode) || (size_t)status.st_size < sizeof(struct fl_vm_state))
        return -EINVAL;
    size_t bytes = (size_t)status.st_size;
    struct fl_vm_state *state = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (state == MAP_FAILED)
        return -errno;
    int error = state_check(state, bytes);
    if (error) {
        munmap(state, bytes);
        return error;
    }
    lock_inbox(state);
    leave_out_of_dumps(state);
    *ret_state = state;
    return 0;
}

void fl_vm_state_unmap(struct fl_vm_state *state)
{
    munmap(state, state->total_bytes);
}
