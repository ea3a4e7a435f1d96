// SPDX-License-Identifier: Apache-2.0
#include "engine/rescue/orphan_state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/host/proc_fd.h"

struct search {
    struct fl_orphan *orphan;
    ino_t inode; // of the one that was found
    struct fl_error *error;
};

// --- whose word it is ---

// Any user can make a memfd of that name, write a lie about another user's VM into it, and have a
// program of root's inherit it: only what root or the caller's own user has made is believed.
static bool is_trusted(const struct stat *status)
{
    return S_ISREG(status->st_mode) && (status->st_uid == 0 || status->st_uid == geteuid());
}

// No process can take memory away from under us while we look.
static bool is_sealed(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK) && (seals & F_SEAL_SEAL);
}

static bool is_believed(int fd, const struct stat *status)
{
    return is_trusted(status) && is_sealed(fd);
}

// The beginning is the same in all versions.
static bool names_process(int fd, pid_t pid)
{
    struct fl_vm_state head;
    size_t bytes = offsetof(struct fl_vm_state, removed_offset);
    return pread(fd, &head, bytes, 0) == (ssize_t)bytes && head.magic == FL_VM_STATE_MAGIC &&
           head.pid == pid;
}

static bool has_state_name(const struct fl_proc_fd *fd)
{
    static const char prefix[] = "/memfd:faultline-vm-";
    return strncmp(fd->target, prefix, sizeof(prefix) - 1) == 0;
}

static bool read_head(int fd, pid_t *ret_pid, char ret_image[FL_IMAGE_NAME_BYTES])
{
    struct fl_vm_state head;
    struct stat status;
    size_t bytes = offsetof(struct fl_vm_state, layout);
    if (fstat(fd, &status) != 0 || !is_believed(fd, &status) ||
        pread(fd, &head, bytes, 0) != (ssize_t)bytes || head.magic != FL_VM_STATE_MAGIC ||
        head.version != FL_VM_STATE_VERSION || !memchr(head.image, '\0', sizeof(head.image)))
        return false;
    *ret_pid = (pid_t)head.pid;
    memcpy(ret_image, head.image, sizeof(head.image));
    return true;
}

bool fl_orphan_state_head(const struct fl_proc_fd *fd, pid_t *ret_pid,
                          char ret_image[FL_IMAGE_NAME_BYTES])
{
    char path[96];
    if (!has_state_name(fd))
        return false;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/fd/%d", (int)fd->pid, (int)fd->tid, fd->fd);
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool found = file >= 0 && read_head(file, ret_pid, ret_image);
    if (file >= 0)
        close(file);
    return found;
}

// --- the search ---

static int take_state(struct search *search, const struct fl_proc_fd *found, int fd,
                      const struct stat *status)
{
    struct fl_orphan *orphan = search->orphan;
    struct fl_vm_state *state = NULL;
    struct fl_orphan_holder holder = {.pid = found->pid, .tid = found->tid, .fd = found->fd};
    fl_proc_name(found->pid, holder.name, sizeof(holder.name));
    int error = fl_vm_state_open(fd, &state);
    if (error == -EPROTONOSUPPORT && !orphan->state) {
        orphan->state_unreadable = true;
        orphan->state_holder = holder;
    }
    if (error)
        return error == -ENOMEM ? error : 0;
    if (!fl_orphan_covered(orphan, &state->layout)) {
        fl_vm_state_unmap(state);
        return 0;
    }
    if (orphan->state) {
        fl_vm_state_unmap(state);
        return fl_fail_plain(
            search->error, -ENOTUNIQ,
            "more than one kept state fits pid %d: that of %s (pid %d, fd %d) and that of %s "
            "(pid %d, fd %d)",
            (int)orphan->pid, orphan->state_holder.name, (int)orphan->state_holder.pid,
            orphan->state_holder.fd, holder.name, (int)holder.pid, holder.fd);
    }
    orphan->state = state;
    orphan->state_fd = fd;
    orphan->state_holder = holder;
    search->inode = status->st_ino;
    return 0;
}

static int look_at(void *arg, const struct fl_proc_fd *found)
{
    struct search *search = arg;
    struct stat status;
    if (!has_state_name(found) || found->pid == getpid())
        return 0;
    int fd = fl_proc_take_fd(found->pid, found->tid, found->fd);
    if (fd < 0)
        return 0;
    int result = 0;
    if (fstat(fd, &status) == 0 && is_believed(fd, &status) &&
        names_process(fd, search->orphan->pid) &&
        !(search->orphan->state && search->inode == status.st_ino))
        result = take_state(search, found, fd, &status);
    if (search->orphan->state_fd != fd)
        close(fd);
    return result;
}

int fl_orphan_find_state(struct fl_orphan *orphan, struct fl_error *ret_error)
{
    bool complete = true;
    struct search search = {.orphan = orphan, .error = ret_error};
    int result = fl_proc_each_fd_of_all(look_at, &search, &complete);
    if (orphan->state)
        orphan->state_unreadable = false;
    return result < 0 ? result : 0;
}
