// SPDX-License-Identifier: Apache-2.0
#include "engine/host/presence.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/base/bitmap.h"
#include "engine/host/procfs.h"
#include "snapshot/read.h"

// FEW: pages that are looked at after the first one that is there, when no more is wanted.
enum { REGIONS = 256, ENTRIES = 4096, FEW = 512 };

// include/uapi/linux/fs.h of Linux 6.7; Debian 12 has the headers of 6.1.
struct scan_region {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
};
struct scan {
    uint64_t size;
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end;
    uint64_t vec;
    uint64_t vec_len;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
};
#define SCAN_IOCTL _IOWR('f', 16, struct scan)
#define SCAN_WRITTEN (1U << 1) // not write-protected
#define SCAN_FILE (1U << 2)
#define SCAN_PRESENT (1U << 3)
#define SCAN_SWAPPED (1U << 4)

// An entry of the pagemap.
#define ENTRY_PRESENT (1ULL << 63)
#define ENTRY_SWAPPED (1ULL << 62)
#define ENTRY_FILE (1ULL << 61)
#define ENTRY_PROTECTED (1ULL << 57)
#define ENTRY_EXCLUSIVE (1ULL << 56) // never of the shared zero page, which is nobody's

// --- opening ---

// The process of a pidfd that has not ended had its number all the while.
static bool has_ended(int pidfd)
{
    struct pollfd watch = {.fd = pidfd, .events = POLLIN};
    return pidfd >= 0 && poll(&watch, 1, 0) != 0;
}

static bool can_scan(int pagemap)
{
    struct scan scan = {.size = sizeof(scan)};
    return ioctl(pagemap, SCAN_IOCTL, &scan) == 0 || errno != ENOTTY;
}

// A file of the process, which belongs to its address space. The descriptor, or -errno.
static int open_of_process(pid_t pid, int pidfd, const char *name)
{
    char path[64];
    pid_t tid = pid;
    if (pid <= 0)
        return -ENOENT;
    // A process whose first thread has ended has its memory by the others.
    fl_proc_live_task(pid, &tid);
    snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", (int)pid, (int)tid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (has_ended(pidfd)) {
        close(fd);
        return -ESRCH;
    }
    return fd;
}

int fl_presence_open_memory(pid_t pid, int pidfd)
{
    return open_of_process(pid, pidfd, "mem");
}

int fl_presence_open(pid_t pid, int pidfd, struct fl_presence *ret_presence)
{
    int pagemap = open_of_process(pid, pidfd, "pagemap");
    if (pagemap < 0)
        return pagemap;
    *ret_presence = (struct fl_presence){.pagemap = pagemap, .by_read = !can_scan(pagemap)};
    return 0;
}

void fl_presence_close(struct fl_presence *presence)
{
    if (presence->pagemap >= 0)
        close(presence->pagemap);
    *presence = FL_PRESENCE_UNKNOWN;
}

// --- looking ---

// A list of runs that grows at its end.
struct runs {
    struct fl_presence_run *run;
    size_t room;
    size_t count;
    bool
        first_only; // the first page is all that is wanted: what is behind it need not be looked at
};

// False if there is no room for it.
static bool add_run(struct runs *runs, uint64_t start, uint64_t end)
{
    if (runs->count > 0 && runs->run[runs->count - 1].end == start) {
        runs->run[runs->count - 1].end = end;
        return true;
    }
    if (runs->count == runs->room)
        return false;
    runs->run[runs->count++] = (struct fl_presence_run){start, end};
    return true;
}

// Of an address space that is gone nothing can be read, whatever a scan says of it.
static int check_alive(int pagemap, uint64_t address)
{
    uint64_t entry = 0;
    off_t at = (off_t)(address >> FL_PAGE_SHIFT) * (off_t)sizeof(entry);
    ssize_t got = pread(pagemap, &entry, sizeof(entry), at);
    return got < 0 ? -errno : got == 0 ? -ESRCH : 0;
}

static bool is_there(uint64_t categories)
{
    return (categories & SCAN_PRESENT) ||
           ((categories & SCAN_SWAPPED) && (categories & SCAN_WRITTEN));
}

static int scan_pages(int pagemap, uint64_t start, uint64_t end, struct runs *runs,
                      uint64_t *ret_looked)
{
    struct scan_region region[REGIONS];
    uint64_t at = start;
    while (at < end) {
        struct scan scan = {.size = sizeof(scan),
                            .start = at,
                            .end = end,
                            .vec = (uintptr_t)region,
                            .vec_len = REGIONS,
                            .max_pages = runs->first_only ? FEW : 0,
                            .category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
                            .return_mask = SCAN_PRESENT | SCAN_SWAPPED | SCAN_WRITTEN};
        int count = ioctl(pagemap, SCAN_IOCTL, &scan);
        if (count < 0 && errno != EINTR)
            return -errno;
        for (int i = 0; i < count; i++) {
            if (is_there(region[i].categories) && !add_run(runs, region[i].start, region[i].end)) {
                *ret_looked = region[i].start;
                return 0;
            }
        }
        if (count >= 0)
            at = scan.walk_end;
        if (runs->first_only && runs->count > 0)
            break;
    }
    *ret_looked = at;
    return 0;
}

static bool entry_is_there(uint64_t entry)
{
    return (entry & ENTRY_PRESENT) || ((entry & ENTRY_SWAPPED) && !(entry & ENTRY_PROTECTED));
}

static int read_entries(int pagemap, uint64_t start, uint64_t end, struct runs *runs,
                        uint64_t *ret_looked)
{
    uint64_t entry[ENTRIES];
    uint64_t at = start;
    while (at < end) {
        uint64_t pages = (end - at) >> FL_PAGE_SHIFT;
        size_t bytes = (pages < ENTRIES ? pages : ENTRIES) * sizeof(entry[0]);
        ssize_t got =
            pread(pagemap, entry, bytes, (off_t)((at >> FL_PAGE_SHIFT) * sizeof(entry[0])));
        if (got < (ssize_t)sizeof(entry[0]))
            return got < 0 ? -errno : -ESRCH;
        for (size_t i = 0; i < (size_t)got / sizeof(entry[0]); i++, at += FL_PAGE_SIZE) {
            if (entry_is_there(entry[i]) && !add_run(runs, at, at + FL_PAGE_SIZE)) {
                *ret_looked = at;
                return 0;
            }
        }
        if (runs->first_only && runs->count > 0)
            break;
    }
    *ret_looked = at;
    return 0;
}

static int look_at_range(const struct fl_presence *presence, uint64_t start, uint64_t end,
                         struct runs *runs, uint64_t *ret_looked)
{
    if (presence->pagemap < 0)
        return -EBADF;
    int error = presence->by_read ? read_entries(presence->pagemap, start, end, runs, ret_looked)
                                  : scan_pages(presence->pagemap, start, end, runs, ret_looked);
    if (!error)
        error = check_alive(presence->pagemap, start);
    return error ? error : (int)runs->count;
}

int fl_presence_runs(const struct fl_presence *presence, uint64_t start, uint64_t end,
                     struct fl_presence_run *ret_runs, size_t room, uint64_t *ret_looked)
{
    struct runs runs = {.run = ret_runs, .room = room};
    return look_at_range(presence, start, end, &runs, ret_looked);
}

int fl_presence_first_present(const struct fl_presence *presence, uint64_t start, uint64_t end,
                              uint64_t *ret_address)
{
    struct fl_presence_run run;
    uint64_t looked = 0;
    struct runs runs = {.run = &run, .room = 1, .first_only = true};
    int count = look_at_range(presence, start, end, &runs, &looked);
    if (count > 0)
        *ret_address = run.start;
    return count;
}

int fl_presence_first_absent(const struct fl_presence *presence, uint64_t start, uint64_t end,
                             uint64_t *ret_address)
{
    struct fl_presence_run run;
    uint64_t looked = 0;
    int count = fl_presence_runs(presence, start, end, &run, 1, &looked);
    if (count < 0)
        return count;
    uint64_t absent = count > 0 && run.start == start ? run.end : start;
    if (absent < end)
        *ret_address = absent;
    return absent < end;
}

// --- with what else is known of them ---

static bool add_kind(struct fl_presence_look *look, struct fl_presence_kind new)
{
    struct fl_presence_kind *last = look->count > 0 ? &look->kind[look->count - 1] : NULL;
    if (last && last->end == new.start && last->protected == new.protected &&
        last->file == new.file) {
        last->end = new.end;
        return true;
    }
    if (look->count == FL_PRESENCE_KINDS)
        return false;
    look->kind[look->count++] = new;
    return true;
}

// A small page in swap is there, also if it is write-protected. Of a page of 2 MiB, which no swap
// takes, that is the mark that it shall be write-protected when it comes.
static bool is_kind(const struct fl_presence_look *look, bool present, bool swapped)
{
    return present || (swapped && look->page_shift == FL_PAGE_SHIFT);
}

static int scan_kinds(int pagemap, struct fl_presence_look *look)
{
    struct scan_region region[FL_PRESENCE_KINDS];
    uint64_t found = 0;
    while (look->looked < look->end && found < look->most) {
        struct scan scan = {.size = sizeof(scan),
                            .start = look->looked,
                            .end = look->end,
                            .vec = (uintptr_t)region,
                            .vec_len = FL_PRESENCE_KINDS,
                            .max_pages = look->most - found,
                            .category_inverted = look->no_files ? SCAN_FILE : 0,
                            .category_mask = look->no_files ? SCAN_FILE : 0,
                            .category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
                            .return_mask = SCAN_PRESENT | SCAN_SWAPPED | SCAN_WRITTEN | SCAN_FILE};
        int count = ioctl(pagemap, SCAN_IOCTL, &scan);
        if (count < 0 && errno != EINTR)
            return -errno;
        for (int i = 0; i < count; i++) {
            uint64_t has = region[i].categories;
            found += (region[i].end - region[i].start) >> FL_PAGE_SHIFT;
            if (is_kind(look, has & SCAN_PRESENT, has & SCAN_SWAPPED) &&
                !add_kind(look,
                          (struct fl_presence_kind){region[i].start, region[i].end,
                                                    !(has & SCAN_WRITTEN), has & SCAN_FILE})) {
                look->looked = region[i].start;
                return 0;
            }
        }
        if (count >= 0)
            look->looked = scan.walk_end;
    }
    return 0;
}

static int read_kinds(int pagemap, struct fl_presence_look *look)
{
    uint64_t entry[FEW];
    uint64_t found = 0;
    while (look->looked < look->end && found < look->most) {
        uint64_t at = look->looked;
        uint64_t pages = (look->end - at) >> FL_PAGE_SHIFT;
        size_t bytes = (pages < FEW ? pages : FEW) * sizeof(entry[0]);
        ssize_t got =
            pread(pagemap, entry, bytes, (off_t)((at >> FL_PAGE_SHIFT) * sizeof(entry[0])));
        if (got < (ssize_t)sizeof(entry[0]))
            return got < 0 ? -errno : -ESRCH;
        for (size_t i = 0; i < (size_t)got / sizeof(entry[0]) && found < look->most; i++) {
            if (is_kind(look, entry[i] & ENTRY_PRESENT, entry[i] & ENTRY_SWAPPED) &&
                !(look->no_files && (entry[i] & ENTRY_FILE))) {
                if (!add_kind(look, (struct fl_presence_kind){at, at + FL_PAGE_SIZE,
                                                              entry[i] & ENTRY_PROTECTED,
                                                              entry[i] & ENTRY_FILE}))
                    return 0;
                found++;
            }
            look->looked = at += FL_PAGE_SIZE;
        }
    }
    return 0;
}

int fl_presence_look(const struct fl_presence *presence, struct fl_presence_look *look)
{
    look->count = 0;
    look->looked = look->start;
    if (presence->pagemap < 0)
        return -EBADF;
    int error = presence->by_read ? read_kinds(presence->pagemap, look)
                                  : scan_kinds(presence->pagemap, look);
    return error ? error : check_alive(presence->pagemap, look->start);
}

// -ESRCH also at the end of the file: the address space has no user any more.
static int read_run(int memory, const struct fl_presence_kind *run, uint8_t *to)
{
    uint64_t at = run->start;
    while (at < run->end) {
        ssize_t got = pread(memory, to + (at - run->start), run->end - at, (off_t)at);
        if (got == 0)
            return -ESRCH;
        if (got < 0 && errno != EINTR)
            return -errno;
        at += got > 0 ? (uint64_t)got : 0;
    }
    return 0;
}

int fl_presence_read(int memory, const struct fl_presence_kind *runs, size_t count, void *to)
{
    uint8_t *next = to;
    int error = 0;
    for (size_t i = 0; i < count && !error; i++) {
        error = read_run(memory, &runs[i], next);
        next += runs[i].end - runs[i].start;
    }
    return error;
}

// --- as bits ---

// The pages that lie in the run as a whole.
static void set_bits(uint64_t *bits, uint64_t start, unsigned page_shift,
                     const struct fl_presence_run *run)
{
    uint64_t page_bytes = 1ULL << page_shift;
    uint64_t first = (run->start - start + page_bytes - 1) >> page_shift;
    uint64_t last = (run->end - start) >> page_shift;
    if (first < last)
        fl_bits_set(bits, first, last - first);
}

int fl_presence_bits(const struct fl_presence *presence, uint64_t start, uint64_t pages,
                     unsigned page_shift, uint64_t *ret_bits)
{
    struct fl_presence_run run[REGIONS];
    uint64_t at = start;
    uint64_t end = start + (pages << page_shift);
    memset(ret_bits, 0, fl_bitmap_bytes(pages));
    while (at < end) {
        int count = fl_presence_runs(presence, at, end, run, REGIONS, &at);
        if (count < 0)
            return count;
        for (int i = 0; i < count; i++)
            set_bits(ret_bits, start, page_shift, &run[i]);
    }
    return 0;
}

// --- what was written to ---

static bool is_written(uint64_t entry)
{
    if (entry & ENTRY_PRESENT)
        return (entry & ENTRY_EXCLUSIVE) && !(entry & ENTRY_FILE);
    return entry & ENTRY_SWAPPED;
}

// By reading, with any kernel: so few entries cost no more than a scan.
int fl_presence_written(const struct fl_presence *presence, uint64_t start, uint64_t pages,
                        uint64_t *ret_written)
{
    uint64_t entry[FL_PRESENCE_WRITTEN];
    if (presence->pagemap < 0)
        return -EBADF;
    if (pages > FL_PRESENCE_WRITTEN)
        return -EINVAL;
    ssize_t got = pread(presence->pagemap, entry, pages * sizeof(entry[0]),
                        (off_t)((start >> FL_PAGE_SHIFT) * sizeof(entry[0])));
    if (got < (ssize_t)(pages * sizeof(entry[0])))
        return got < 0 ? -errno : -ESRCH;
    *ret_written = 0;
    for (uint64_t i = 0; i < pages; i++)
        *ret_written += is_written(entry[i]);
    return 0;
}
