// SPDX-License-Identifier: Apache-2.0
#include "snapshot/pack_input.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/io.h"

// A hole is cut as well, so that progress and cancelling do not wait for a huge one.
#define HOLE_PAGES_MAX (UINT64_C(1) << 20)

int fl_input_open(const char *what, const char *path, int *ret_fd, struct stat *ret_stat,
                  struct fl_error *ret_error)
{
    // Non-blocking, so that naming a FIFO by mistake is an error and not a wait.
    *ret_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*ret_fd < 0)
        return fl_fail(ret_error, -errno, "cannot open the %s %s", what, path);
    if (fstat(*ret_fd, ret_stat) < 0)
        return fl_fail(ret_error, -errno, "cannot read the %s %s", what, path);
    if (!S_ISREG(ret_stat->st_mode))
        return fl_fail_plain(ret_error, -EINVAL, "the %s %s is not a regular file", what, path);
    if (ret_stat->st_size == 0)
        return fl_fail_plain(ret_error, -ENODATA, "the %s %s is empty", what, path);
    return 0;
}

int fl_input_unchanged(const char *what, const char *path, int fd, const struct stat *then,
                       struct fl_error *ret_error)
{
    struct stat now;
    if (fstat(fd, &now) < 0)
        return fl_fail(ret_error, -errno, "cannot read the %s %s", what, path);
    if (now.st_size < then->st_size)
        return fl_fail_plain(ret_error, -ENODATA, "the %s %s shrank while it was read", what, path);
    if (now.st_size > then->st_size || now.st_mtim.tv_sec != then->st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != then->st_mtim.tv_nsec)
        return fl_fail_plain(ret_error, -EBUSY, "the %s %s was written to while it was read", what,
                             path);
    return 0;
}

// Returns the first byte of data at or after `at`; the file's size if only a hole is left.
static int find_data(const struct fl_pack_run *run, uint64_t at, uint64_t *ret_data)
{
    off_t data = lseek(run->input_fd, (off_t)at, SEEK_DATA);
    if (data < 0 && errno != ENXIO)
        return -errno;
    uint64_t found = data < 0 ? run->input_bytes : (uint64_t)data;
    *ret_data = found < run->input_bytes ? found : run->input_bytes;
    return 0;
}

int fl_input_next(struct fl_pack_run *run, struct fl_chunk *chunk)
{
    uint64_t data = 0;
    int r = find_data(run, run->next_page * FL_PAGE_SIZE, &data);
    if (r < 0)
        return fl_pack_failed(run, FL_FAULT_INPUT, r);
    // Chunks are aligned: the bound on fragmentation is for ranges that huge pages have.
    uint64_t hole_end =
        data == run->input_bytes ? run->input_pages : data / FL_CHUNK_BYTES * FL_CHUNK_PAGES;
    uint64_t limit = FL_CHUNK_PAGES;
    chunk->hole = hole_end > run->next_page;
    if (chunk->hole) {
        limit = hole_end - run->next_page;
        limit = limit < HOLE_PAGES_MAX ? limit : HOLE_PAGES_MAX;
    }
    uint64_t left = run->input_pages - run->next_page;
    chunk->first_page = run->next_page;
    chunk->pages = left < limit ? left : limit;
    run->next_page += chunk->pages;
    return 1;
}

static int read_input(struct fl_pack_run *run, void *buf, size_t len, uint64_t offset)
{
    int r = fl_pread_full(run->input_fd, buf, len, offset);
    if (r == -EBADMSG)
        return fl_pack_failed(run, FL_FAULT_SHRANK, -ENODATA);
    return r < 0 ? fl_pack_failed(run, FL_FAULT_INPUT, r) : 0;
}

// Reads the data of the chunk and clears the holes between; the last page is filled up with zeros.
int fl_input_read(struct fl_pack_run *run, struct fl_chunk *chunk)
{
    uint64_t start = chunk->first_page * FL_PAGE_SIZE;
    uint64_t end = start + chunk->pages * FL_PAGE_SIZE;
    uint64_t at = start;
    chunk->data_bytes = 0;
    fl_chunk_fill(chunk);
    while (at < end) {
        uint64_t data = 0;
        int r = find_data(run, at, &data);
        if (r < 0)
            return fl_pack_failed(run, FL_FAULT_INPUT, r);
        uint64_t from = data < end ? data : end;
        memset(chunk->input + (at - start), 0, from - at);
        at = from;
        if (data >= run->input_bytes || data >= end)
            break;
        off_t hole = lseek(run->input_fd, (off_t)data, SEEK_HOLE);
        // Data a moment ago and beyond the end now: the file has shrunk, and reading says so.
        uint64_t to = hole < 0 ? run->input_bytes : (uint64_t)hole;
        to = to < run->input_bytes ? to : run->input_bytes;
        to = to < end ? to : end;
        r = read_input(run, chunk->input + (at - start), to - at, at);
        if (r < 0)
            return r;
        chunk->data_bytes += to - at;
        at = to;
    }
    memset(chunk->input + (at - start), 0, end - at);
    return 0;
}
