// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/file_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "snapshot/read.h"
#include "tools/verbs/file_mappings.h"

enum { LOOKS = 50, LOOK_EVERY_MS = 4 };

// --- the file ---

enum { MAPPED_PATH = 96 };

// The file of a mapping, wherever it is or was. Only CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN may
// follow this link.
static void mapped_path(pid_t pid, const struct file_mapping *mapping, char ret_path[MAPPED_PATH])
{
    snprintf(ret_path, MAPPED_PATH, "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)pid,
             mapping->start, mapping->end);
}

static bool is_of(const struct file_mapping *mapping, const struct file_mapping *other)
{
    return other && mapping->device == other->device && mapping->inode == other->inode;
}

// What a search for the file has found.
struct search {
    const struct file_mapping *found; // mapped privately, of the right size
    const struct file_mapping *last;  // looked at last: mappings of one file are often neighbours
    bool several;
    bool shared; // one of the right size is mapped shared
    int error;   // why a file could not be looked at; 0: none
    int file;    // of `found`
    struct stat status;
};

// It must be what was looked at: the process may map something else there meanwhile.
static int open_looked_at(const char *path, const struct stat *looked, struct stat *ret_status)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    int error = fstat(fd, ret_status) != 0 ? -errno : 0;
    if (!error && (ret_status->st_dev != looked->st_dev || ret_status->st_ino != looked->st_ino ||
                   ret_status->st_size != looked->st_size))
        error = -ESTALE;
    if (!error)
        return fd;
    close(fd);
    return error;
}

// Only what can be the memory is opened: to open a device may do something.
static void consider(pid_t pid, const struct file_mapping *mapping, uint64_t bytes,
                     struct search *search)
{
    char path[MAPPED_PATH];
    struct stat status;
    if (mapping->inode == 0 || !mapping->writable || is_of(mapping, search->last) ||
        is_of(mapping, search->found))
        return;
    mapped_path(pid, mapping, path);
    if (stat(path, &status) != 0) {
        search->error = -errno;
        return;
    }
    search->last = mapping;
    if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size != bytes)
        return;
    if (mapping->shared)
        search->shared = true;
    else if (search->found)
        search->several = true;
    else if ((search->file = open_looked_at(path, &status, &search->status)) < 0)
        search->error = search->file;
    else
        search->found = mapping;
}

static int say_not_found(pid_t pid, uint64_t bytes, const struct search *search,
                         struct fl_error *ret_error)
{
    if (search->several)
        return fl_fail_plain(ret_error, -ENOTUNIQ,
                             "process %d maps several files of %" PRIu64
                             " bytes privately: which is its VM's memory is not certain",
                             (int)pid, bytes);
    if (search->shared)
        return fl_fail_plain(ret_error, -EINVAL,
                             "process %d maps a file of %" PRIu64
                             " bytes shared, and not privately: what its guest writes is in that "
                             "file, which 'faultline pack' can pack while the VM is paused",
                             (int)pid, bytes);
    if (search->error == -EPERM || search->error == -EACCES)
        return fl_fail(ret_error, search->error,
                       "the files that process %d maps cannot be looked at; run this as root",
                       (int)pid);
    return fl_fail_plain(ret_error, -ENOENT,
                         "process %d maps no file of %" PRIu64
                         " bytes privately, which its memory file would have",
                         (int)pid, bytes);
}

static int find_file(pid_t pid, const struct file_mappings *mappings, uint64_t bytes,
                     struct search *ret_search, struct fl_error *ret_error)
{
    struct search *search = ret_search;
    *search = (struct search){.file = -1};
    for (size_t i = 0; i < mappings->count && !search->several; i++)
        consider(pid, &mappings->all[i], bytes, search);
    if (search->found && !search->several)
        return 0;
    if (search->file >= 0)
        close(search->file);
    search->file = -1;
    return say_not_found(pid, bytes, search, ret_error);
}

// --- where it is ---

static int read_mappings(pid_t pid, struct file_mappings *ret_mappings, struct fl_error *ret_error)
{
    char path[64];
    *ret_mappings = (struct file_mappings){0};
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    int error = maps ? file_mappings_read(maps, ret_mappings) : -errno;
    if (maps)
        fclose(maps);
    return error ? fl_fail(ret_error, error, "what process %d maps cannot be read", (int)pid) : 0;
}

static bool has_ended(const struct file_memory *memory)
{
    struct pollfd watch = {.fd = memory->pidfd, .events = POLLIN};
    return poll(&watch, 1, 0) != 0;
}

static int say_ended(const struct file_memory *memory, struct fl_error *ret_error)
{
    return fl_fail_plain(ret_error, -ESRCH, "process %d has ended", (int)memory->pid);
}

// Takes the file over from the search.
static int take(const struct file_mappings *mappings, const struct search *search,
                struct file_memory *memory, struct fl_error *ret_error)
{
    struct fl_error why;
    if (memory->file >= 0 && (search->status.st_dev != memory->status.st_dev ||
                              search->status.st_ino != memory->status.st_ino)) {
        close(search->file);
        return fl_fail_plain(ret_error, -ESTALE, "process %d maps another memory file by now",
                             (int)memory->pid);
    }
    if (memory->file >= 0)
        close(memory->file);
    memory->file = search->file;
    memory->status = search->status;
    int error = file_mappings_pieces(mappings, search->found, memory->bytes, memory, &why);
    if (error)
        return fl_fail_plain(ret_error, error, "the memory file of process %d: it %s",
                             (int)memory->pid, why.text);
    return 0;
}

int file_memory_look_again(struct file_memory *memory, struct fl_error *ret_error)
{
    struct file_mappings mappings;
    struct search search;
    int error = read_mappings(memory->pid, &mappings, ret_error);
    if (!error)
        error = find_file(memory->pid, &mappings, memory->bytes, &search, ret_error);
    if (!error)
        error = take(&mappings, &search, memory, ret_error);
    file_mappings_free(&mappings);
    // Then it was the process's all the while.
    if (has_ended(memory))
        return say_ended(memory, ret_error);
    return error;
}

// A VM that runs may change its mappings just now, by its balloon: what is read of them may be of
// two moments, and a mapping may be gone before its file is opened.
static int look_while_it_runs(struct file_memory *memory, struct fl_error *ret_error)
{
    int error = file_memory_look_again(memory, ret_error);
    for (unsigned i = 1; i < LOOKS && error && error != -ESRCH; i++) {
        poll(NULL, 0, LOOK_EVERY_MS);
        error = file_memory_look_again(memory, ret_error);
    }
    return error;
}

void file_memory_init(struct file_memory *memory)
{
    *memory = (struct file_memory){
        .pidfd = -1, .presence = FL_PRESENCE_UNKNOWN, .memory = -1, .file = -1};
}

int file_memory_open(pid_t pid, uint64_t bytes, struct file_memory *ret_memory,
                     struct fl_error *ret_error)
{
    struct file_memory *memory = ret_memory;
    file_memory_init(memory);
    memory->pid = pid;
    memory->bytes = bytes;
    if (bytes % FL_PAGE_SIZE != 0)
        return fl_fail_plain(
            ret_error, -EINVAL,
            "no VM has %" PRIu64 " bytes of memory: that is not a multiple of 4 KiB", bytes);
    memory->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (memory->pidfd < 0)
        return fl_fail(ret_error, -errno, "there is no process %d", (int)pid);
    int error = fl_presence_open(pid, memory->pidfd, &memory->presence);
    if (!error) {
        memory->memory = fl_presence_open_memory(pid, memory->pidfd);
        error = memory->memory < 0 ? memory->memory : 0;
    }
    if (error)
        return fl_fail(ret_error, error,
                       "the memory of process %d cannot be read; run this as root", (int)pid);
    return look_while_it_runs(memory, ret_error);
}

void file_memory_close(struct file_memory *memory)
{
    const int all[] = {memory->pidfd, memory->memory, memory->file};
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (all[i] >= 0)
            close(all[i]);
    }
    fl_presence_close(&memory->presence);
    free(memory->piece);
    file_memory_init(memory);
}

// --- what is in it ---

static int each_of(const struct file_memory *memory, const struct file_piece *piece,
                   int (*fn)(void *arg, uint64_t address, uint64_t offset, uint64_t bytes),
                   void *arg, struct fl_error *ret_error)
{
    struct fl_presence_look look = {.start = piece->start,
                                    .end = piece->end,
                                    .page_shift = FL_PAGE_SHIFT,
                                    .no_files = true,
                                    .most = UINT64_MAX};
    while (look.start < look.end) {
        int error = fl_presence_look(&memory->presence, &look);
        if (error)
            return fl_fail(ret_error, error, "the memory of process %d cannot be looked at",
                           (int)memory->pid);
        for (size_t i = 0; i < look.count; i++) {
            uint64_t at = look.kind[i].start;
            int result = fn(arg, at, at - piece->start + piece->offset,
                            look.kind[i].end - look.kind[i].start);
            if (result)
                return result;
        }
        look.start = look.looked;
    }
    return 0;
}

int file_memory_each(const struct file_memory *memory,
                     int (*fn)(void *arg, uint64_t address, uint64_t offset, uint64_t bytes),
                     void *arg, struct fl_error *ret_error)
{
    int result = 0;
    for (size_t i = 0; i < memory->count && !result; i++)
        result = each_of(memory, &memory->piece[i], fn, arg, ret_error);
    return result;
}

bool file_memory_file_is_same(const struct file_memory *memory)
{
    struct stat now;
    const struct stat *was = &memory->status;
    return fstat(memory->file, &now) == 0 && now.st_size == was->st_size &&
           now.st_mtim.tv_sec == was->st_mtim.tv_sec &&
           now.st_mtim.tv_nsec == was->st_mtim.tv_nsec &&
           now.st_ctim.tv_sec == was->st_ctim.tv_sec && now.st_ctim.tv_nsec == was->st_ctim.tv_nsec;
}
