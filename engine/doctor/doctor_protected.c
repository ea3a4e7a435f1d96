// SPDX-License-Identifier: Apache-2.0
//
// An engine says in the state that there may be protected pages before it protects the first, and
// takes that back behind the last. So what is protected between two looks that both find no such
// word is what no engine knows of, however busy it is.
#include "engine/doctor/doctor_protected.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "engine/host/presence.h"
#include "engine/host/proc_fd.h"
#include "engine/vm/vm_state.h"

static uint64_t count_in(const struct fl_presence *presence, const struct fl_region *region,
                         unsigned page_shift)
{
    uint64_t pages = 0;
    struct fl_presence_look look = {.start = region->base,
                                    .end = region->base + region->bytes,
                                    .page_shift = page_shift,
                                    .most = UINT64_MAX >> FL_PAGE_SHIFT};
    while (look.start < look.end && fl_presence_look(presence, &look) == 0) {
        for (size_t i = 0; i < look.count; i++) {
            if (look.kind[i].protected)
                pages += (look.kind[i].end - look.kind[i].start) >> FL_PAGE_SHIFT;
        }
        look.start = look.looked;
    }
    return pages;
}

static uint64_t count_all(const struct fl_vm_state *state)
{
    uint64_t pages = 0;
    struct fl_presence presence;
    if (fl_presence_open((pid_t)state->pid, -1, &presence) != 0)
        return 0;
    for (uint32_t i = 0; i < state->layout.regions; i++)
        pages += count_in(&presence, &state->layout.region[i], state->layout.page_shift);
    fl_presence_close(&presence);
    return pages;
}

static bool says_protected(struct fl_vm_state *state)
{
    return __atomic_load_n(&fl_vm_filling(state)->protected, __ATOMIC_SEQ_CST) != 0;
}

uint64_t fl_doctor_protected(const struct fl_proc_fd *fd, uint64_t *ret_id)
{
    char path[96];
    struct fl_vm_state *state = NULL;
    uint64_t pages = 0;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/fd/%d", (int)fd->pid, (int)fd->tid, fd->fd);
    int file = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (file >= 0 && fl_vm_state_open(file, &state) == 0) {
        *ret_id = state->id;
        pages = says_protected(state) ? 0 : count_all(state);
        pages = says_protected(state) ? 0 : pages;
        fl_vm_state_unmap(state);
    }
    if (file >= 0)
        close(file);
    return pages;
}
