// SPDX-License-Identifier: Apache-2.0
#include "engine/files/files_state.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/files/protocol.h"

static_assert(sizeof(struct fl_files_entry) == 96 + 136, "the layout is kept between versions");
static_assert(offsetof(struct fl_files_state, entry) == 16 + 8 + 8 + 256 * 8 + 16,
              "the layout is kept between versions");
static_assert(offsetof(struct fl_files_state, connection) ==
                  offsetof(struct fl_fuse_state_head, connection),
              "the doctor reads its head");

static int map_state(int fd, struct fl_files_state **ret_state)
{
    void *at = mmap(NULL, sizeof(**ret_state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return -errno;
    *ret_state = at;
    return 0;
}

int fl_files_state_new(int *ret_fd, struct fl_files_state **ret_state)
{
    int fd = memfd_create(FL_FUSE_STATE_NAME, MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = ftruncate(fd, sizeof(**ret_state)) == 0 ? map_state(fd, ret_state) : -errno;
    if (error) {
        close(fd);
        return error;
    }
    (*ret_state)->magic = FL_FILES_MAGIC;
    (*ret_state)->version = FL_FILES_VERSION;
    // The kernel may know nodes of a state that was lost: none comes a nanosecond.
    (*ret_state)->last_id = fl_now() + FL_FILES_FIRST;
    *ret_fd = fd;
    return 0;
}

int fl_files_state_open(int fd, struct fl_files_state **ret_state)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    if (status.st_size != (off_t)sizeof(**ret_state))
        return -EINVAL;
    int error = map_state(fd, ret_state);
    if (error)
        return error;
    error = (*ret_state)->magic != FL_FILES_MAGIC       ? -EINVAL
            : (*ret_state)->version != FL_FILES_VERSION ? -EPROTONOSUPPORT
                                                        : 0;
    if (error)
        fl_files_state_unmap(*ret_state);
    return error;
}

void fl_files_state_unmap(struct fl_files_state *state)
{
    if (state)
        munmap(state, sizeof(*state));
}

struct fl_files_entry *fl_files_state_room(struct fl_files_state *state)
{
    for (unsigned i = 0; i < FL_FILES_MOST; i++) {
        if (state->entry[i].id == 0)
            return &state->entry[i];
    }
    return NULL;
}

bool fl_files_state_is_noted(const struct fl_files_state *state, uint64_t unique)
{
    uint64_t number = unique & ~FL_FUSE_RESENT;
    for (unsigned i = 0; i < FL_FILES_NOTED && unique & FL_FUSE_RESENT; i++) {
        if (state->noted[i] == number)
            return true;
    }
    return false;
}

bool fl_files_state_note(struct fl_files_state *state, uint64_t unique)
{
    if (fl_files_state_is_noted(state, unique))
        return false;
    atomic_signal_fence(memory_order_seq_cst);
    state->noted[state->next_noted++ % FL_FILES_NOTED] = unique & ~FL_FUSE_RESENT;
    atomic_signal_fence(memory_order_seq_cst);
    return true;
}
