// SPDX-License-Identifier: Apache-2.0
//
// evict: has the kernel drop its page cache of files, and checks that it did. Without the check, a
// benchmark of a cold disk might measure the page cache. It cannot empty the disk's own cache, nor
// the page cache of a virtual machine's host.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/common/options.h"

enum { PAGE = 4096 };

static int count_resident(int fd, uint64_t pages, uint64_t *ret_resident)
{
    int err = 0;
    uint64_t resident = 0;
    unsigned char *in = malloc(pages);
    void *base = mmap(NULL, pages * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    if (in == NULL || base == MAP_FAILED || mincore(base, pages * PAGE, in) < 0)
        err = -errno;
    for (uint64_t i = 0; i < pages && err == 0; i++)
        resident += in[i] & 1;
    if (base != MAP_FAILED)
        munmap(base, pages * PAGE);
    free(in);
    *ret_resident = resident;
    return err;
}

// The kernel does not drop dirty pages: fsync() writes them first.
static int evict(int fd, uint64_t *ret_pages, uint64_t *ret_resident)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || fsync(fd) < 0)
        return -errno;
    *ret_pages = ((uint64_t)st.st_size + PAGE - 1) / PAGE;
    if (*ret_pages == 0)
        return 0;
    int err = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    return err > 0 ? -err : count_resident(fd, *ret_pages, ret_resident);
}

// Prints why and returns false if more than a hundredth of the file stays in memory.
static bool evict_path(const char *path)
{
    uint64_t pages = 0, resident = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int err = fd < 0 ? -errno : evict(fd, &pages, &resident);
    if (fd >= 0)
        close(fd);
    if (err < 0)
        fprintf(stderr, "evict: %s: %s\n", path, strerror(-err));
    else if (resident > pages / 100)
        fprintf(stderr, "evict: %s: %" PRIu64 " of %" PRIu64 " pages stay in the page cache\n",
                path, resident, pages);
    return err == 0 && resident <= pages / 100;
}

int main(int argc, char **argv)
{
    static struct bench_list files;
    static const struct bench_option options[] = {
        {.value = "FILE", .list = &files, .required = true, .help = "files on a disk"},
        BENCH_OPTIONS_END,
    };
    static const struct bench_command command = {
        .program = "evict",
        .about = "Has the kernel forget what it caches of files. Fails if it did not.",
        .option = options,
    };
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    bool good = true;
    for (unsigned i = 0; i < files.count; i++)
        good = evict_path(files.text[i]) && good;
    return good ? 0 : 1;
}
