// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. Nothing tells what the guest writes after the pause, so all that it has
// written must be copied in the pause, and is in memory twice until it is packed. The memory for
// that is got before: by then there may be too little, and what takes long in the copying is not
// the copying but the getting.
//
// What it has not written is as in the file, which does not change under a VM that maps it. It is
// read when it is packed, and if the file was changed meanwhile there is no image.
#include "tools/verbs/file_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/base/bitmap.h"
#include "engine/host/procfs.h"
#include "snapshot/read.h"

#ifndef MADV_POPULATE_WRITE // Linux 5.14; Debian 12's C library has it
#define MADV_POPULATE_WRITE 23
#endif

// SPARE_PERCENT: of what the host has available, left to others. PIECE: bytes between two checks.
enum { SPARE_PERCENT = 5, MEMINFO = 4096, PIECE = 4 << 20 };

void file_copy_init(struct file_copy *copy)
{
    *copy = (struct file_copy){.buffer = -1};
}

int file_copy_begin(struct file_memory *memory, struct file_copy *ret_copy,
                    struct fl_error *ret_error)
{
    struct file_copy *copy = ret_copy;
    file_copy_init(copy);
    copy->memory = memory;
    copy->pages = memory->bytes / FL_PAGE_SIZE;
    copy->data = calloc(1, fl_bitmap_bytes(copy->pages));
    copy->zero = calloc(1, fl_bitmap_bytes(copy->pages));
    copy->buffer = memfd_create("faultline-checkpoint", MFD_CLOEXEC);
    int error = !copy->data || !copy->zero ? -ENOMEM : copy->buffer < 0 ? -errno : 0;
    if (!error && ftruncate(copy->buffer, (off_t)memory->bytes) < 0)
        error = -errno;
    void *map = error ? MAP_FAILED
                      : mmap(NULL, memory->bytes, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_NORESERVE, copy->buffer, 0);
    if (!error && map == MAP_FAILED)
        error = -errno;
    if (error)
        return fl_fail(ret_error, error, "a buffer for the VM's memory cannot be made");
    copy->bytes = map;
    madvise(map, memory->bytes, MADV_DONTDUMP); // a core dump has no guest's memory
    return 0;
}

void file_copy_end(struct file_copy *copy)
{
    if (copy->bytes)
        munmap(copy->bytes, copy->pages * FL_PAGE_SIZE);
    if (copy->buffer >= 0)
        close(copy->buffer);
    free(copy->data);
    free(copy->zero);
    file_copy_init(copy);
}

// --- before the pause ---

static int count_run(void *arg, uint64_t address, uint64_t offset, uint64_t bytes)
{
    uint64_t *all = arg;
    (void)address;
    (void)offset;
    *all += bytes;
    return 0;
}

static int check_available(uint64_t wanted, struct fl_error *ret_error)
{
    char text[MEMINFO];
    uint64_t kib;
    if (fl_proc_read("/proc/meminfo", text, sizeof(text)) <= 0 ||
        !fl_proc_number(text, "MemAvailable:", &kib))
        return 0; // unknown
    uint64_t available = kib * 1024 / 100 * (100 - SPARE_PERCENT);
    if (wanted <= available)
        return 0;
    return fl_fail_plain(ret_error, -ENOMEM,
                         "the guest has written to %" PRIu64 " MiB, of which a copy is made in "
                         "memory, and the host has %" PRIu64 " MiB available",
                         wanted >> 20, kib >> 10);
}

static int reserve_run(void *arg, uint64_t address, uint64_t offset, uint64_t bytes)
{
    const struct file_copy *copy = arg;
    (void)address;
    return madvise(copy->bytes + offset, bytes, MADV_POPULATE_WRITE) < 0 ? -errno : 0;
}

int file_copy_reserve(struct file_copy *copy, struct fl_error *ret_error)
{
    struct fl_error why = {.text = ""};
    uint64_t wanted = 0;
    int error = file_memory_each(copy->memory, count_run, &wanted, ret_error);
    if (!error)
        error = check_available(wanted, ret_error);
    if (error)
        return error;
    error = file_memory_each(copy->memory, reserve_run, copy, &why);
    if (error && why.text[0])
        return fl_fail_plain(ret_error, error, "%s", why.text);
    return error ? fl_fail(ret_error, error, "memory for a copy of what the guest has written") : 0;
}

// --- in the pause ---

static int copy_run(void *arg, uint64_t address, uint64_t offset, uint64_t bytes)
{
    struct file_copy *copy = arg;
    for (uint64_t at = 0; at < bytes; at += PIECE) {
        uint64_t some = bytes - at < PIECE ? bytes - at : PIECE;
        struct fl_presence_kind run = {.start = address + at, .end = address + at + some};
        copy->stopped = copy->check ? copy->check(copy->check_arg) : 0;
        int error = copy->stopped;
        if (!error)
            error = fl_presence_read(copy->memory->memory, &run, 1, copy->bytes + offset + at);
        if (error)
            return error;
    }
    fl_bits_set(copy->data, offset / FL_PAGE_SIZE, bytes / FL_PAGE_SIZE);
    copy->copied += bytes / FL_PAGE_SIZE;
    return 0;
}

int file_copy_take(struct file_copy *copy, struct fl_error *ret_error)
{
    struct fl_error why = {.text = ""};
    const struct file_memory *memory = copy->memory;
    int error = file_memory_each(memory, copy_run, copy, &why);
    if (copy->stopped)
        return copy->stopped;
    if (error && why.text[0])
        return fl_fail_plain(ret_error, error, "%s", why.text);
    if (error)
        return fl_fail(ret_error, error, "the memory of process %d cannot be read",
                       (int)memory->pid);
    for (size_t i = 0; i < memory->count; i++) {
        const struct file_piece *piece = &memory->piece[i];
        if (piece->zeros)
            fl_bits_set(copy->zero, piece->offset / FL_PAGE_SIZE,
                        (piece->end - piece->start) / FL_PAGE_SIZE);
    }
    return 0;
}

// --- when it is packed ---

static bool is_of_file(const struct file_copy *copy, uint64_t page)
{
    return !fl_bit_test(copy->data, page) && !fl_bit_test(copy->zero, page);
}

static int read_file(const struct file_copy *copy, uint64_t page, uint64_t pages)
{
    uint64_t at = page * FL_PAGE_SIZE;
    uint64_t end = at + pages * FL_PAGE_SIZE;
    while (at < end) {
        ssize_t got = pread(copy->memory->file, copy->bytes + at, end - at, (off_t)at);
        if (got == 0)
            return -ESTALE; // it has become shorter
        if (got < 0 && errno != EINTR)
            return -errno;
        at += got > 0 ? (uint64_t)got : 0;
    }
    return 0;
}

// The page from which on the file has something.
static uint64_t after_hole(const struct file_copy *copy, uint64_t page)
{
    off_t data = lseek(copy->memory->file, (off_t)(page * FL_PAGE_SIZE), SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? copy->pages : page;
    return (uint64_t)data / FL_PAGE_SIZE;
}

// Pages that are as in the file, in a row.
static int take_of_file(struct file_copy *copy, uint64_t page, uint64_t end)
{
    uint64_t data = after_hole(copy, page);
    data = data < end ? data : end;
    if (data > page)
        fl_bits_set(copy->zero, page, data - page);
    if (data == end)
        return 0;
    int error = read_file(copy, data, end - data);
    if (!error)
        fl_bits_set(copy->data, data, end - data);
    return error;
}

static int live_await(void *arg, uint64_t first, uint64_t count)
{
    struct file_copy *copy = arg;
    uint64_t end = first + count;
    int error = 0;
    for (uint64_t page = first; page < end && !error && !copy->as_parent;) {
        uint64_t next = page;
        while (next < end && is_of_file(copy, next))
            next++;
        if (next > page)
            error = take_of_file(copy, page, next);
        page = next > page ? next : page + 1;
    }
    if (!error && end == copy->pages && !file_memory_file_is_same(copy->memory))
        error = -ESTALE;
    return error;
}

static enum fl_live_page live_page(void *arg, uint64_t page)
{
    const struct file_copy *copy = arg;
    if (fl_bit_test(copy->data, page))
        return FL_LIVE_DATA;
    return fl_bit_test(copy->zero, page) ? FL_LIVE_ZERO : FL_LIVE_PARENT;
}

static void live_consumed(void *arg, uint64_t first, uint64_t count)
{
    const struct file_copy *copy = arg;
    // It gives memory back and nothing else: what fails is freed with the buffer.
    int punched = fallocate(copy->buffer, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                            (off_t)(first * FL_PAGE_SIZE), (off_t)(count * FL_PAGE_SIZE));
    (void)punched;
}

struct fl_pack_live *file_copy_live(struct file_copy *copy)
{
    copy->live = (struct fl_pack_live){.buffer_fd = copy->buffer,
                                       .bytes = copy->memory->bytes,
                                       .await = live_await,
                                       .page = live_page,
                                       .consumed = live_consumed,
                                       .arg = copy};
    return &copy->live;
}
