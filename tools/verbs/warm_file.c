// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. readahead() asks for a part without waiting for it, and the kernel takes no
// more of it than WARM_PART_PAGES. AHEAD parts are on their way, so that a VM's fault has no more
// than these before it in the server's queue. What has come is waited for by sendfile() to
// /dev/null, which copies nothing. POSIX_FADV_RANDOM keeps the kernel from reading further than it
// is told to.
#include "tools/verbs/warm_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/host/host_memory.h"

enum { AHEAD = 4, LOOK_EVERY = 64 };

struct warming {
    const struct warm_file *file;
    const struct warm_order *order;
    void *map; // never touched: mincore() asks by address
    int null_fd;
    struct warmed warmed;
};

// Where the kernel does not tell, they are read: those that are there cost little.
static unsigned count_there(const struct warming *warming, const struct warm_part *part)
{
    unsigned char there[WARM_PART_PAGES] = {0};
    unsigned count = 0;
    char *at = (char *)warming->map + part->first * FL_PAGE_SIZE;
    if (mincore(at, (size_t)part->pages * FL_PAGE_SIZE, there) != 0)
        return 0;
    for (uint32_t i = 0; i < part->pages; i++)
        count += there[i] & 1;
    return count;
}

static void ask_for(const struct warming *warming, uint64_t number)
{
    if (number >= warming->order->parts)
        return;
    const struct warm_part *part = &warming->order->part[number];
    // What cannot be asked for ahead is read when it is waited for.
    (void)readahead(warming->file->fd, (off64_t)(part->first * FL_PAGE_SIZE),
                    (size_t)part->pages * FL_PAGE_SIZE);
}

static int wait_for(const struct warming *warming, const struct warm_part *part)
{
    off_t at = (off_t)(part->first * FL_PAGE_SIZE);
    off_t end = at + (off_t)part->pages * FL_PAGE_SIZE;
    if ((uint64_t)end > warming->file->bytes)
        end = (off_t)warming->file->bytes;
    while (at < end) {
        ssize_t got = sendfile(warming->null_fd, warming->file->fd, &at, (size_t)(end - at));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -EIO;
    }
    return 0;
}

// That the other end is gone tells nothing: an engine has died, and the next one serves the file.
static bool is_told_to_end(const struct warm_file *file)
{
    char word;
    return file->told_fd >= 0 && recv(file->told_fd, &word, 1, MSG_DONTWAIT) > 0;
}

static bool goes_on(struct warming *warming, uint64_t number)
{
    if (is_told_to_end(warming->file))
        warming->warmed.end = WARM_TOLD;
    else if (number % LOOK_EVERY == 0 && fl_host_memory_is_scarce(warming->file->reserve))
        warming->warmed.end = WARM_SCARCE;
    return warming->warmed.end == WARM_DONE;
}

static void warm(struct warming *warming)
{
    struct warmed *warmed = &warming->warmed;
    for (uint64_t i = 0; i < AHEAD; i++)
        ask_for(warming, i);
    for (uint64_t i = 0; i < warming->order->parts && goes_on(warming, i); i++) {
        const struct warm_part *part = &warming->order->part[i];
        ask_for(warming, i + AHEAD);
        int error = wait_for(warming, part);
        warmed->brought += error ? 0 : part->pages;
        warmed->failed += error ? part->pages : 0;
        if (error && !warmed->error)
            warmed->error = error;
    }
}

static uint64_t count_all_there(const struct warming *warming)
{
    uint64_t there = 0;
    for (uint64_t i = 0; i < warming->order->parts; i++)
        there += count_there(warming, &warming->order->part[i]);
    return there;
}

int warm_file(const struct warm_file *file, const struct warm_order *order,
              struct warmed *ret_warmed)
{
    struct warming warming = {.file = file, .order = order};
    warming.map = mmap(NULL, file->bytes, PROT_READ, MAP_SHARED, file->fd, 0);
    if (warming.map == MAP_FAILED)
        return -errno;
    warming.null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    int error = warming.null_fd < 0 ? -errno : -posix_fadvise(file->fd, 0, 0, POSIX_FADV_RANDOM);
    if (!error) {
        warming.warmed.there = count_all_there(&warming);
        if (warming.warmed.there < order->pages)
            warm(&warming);
        else
            warming.warmed.brought = order->pages;
        *ret_warmed = warming.warmed;
    }
    if (warming.null_fd >= 0)
        close(warming.null_fd);
    munmap(warming.map, file->bytes);
    return error;
}
