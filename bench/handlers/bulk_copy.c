// SPDX-License-Identifier: Apache-2.0
//
// bulk_copy: the ceiling of a replay. One thread fills registered memory from a buffer, with one
// UFFDIO_COPY for each chunk, as fast as the machine can. It reads no file and decompresses
// nothing, and no thread waits for the pages. Both memories were touched before, so that the host
// has already given their pages to this machine.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/common/options.h"
#include "bench/load/guest.h"

static int register_memory(void *base, uint64_t bytes, int *ret_uffd)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register reg = {
        .range = {.start = (uintptr_t)base, .len = bytes},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    if (ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &reg) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    *ret_uffd = fd;
    return 0;
}

static int copy_all(int uffd, unsigned char *to, const unsigned char *from, uint64_t bytes,
                    uint64_t chunk)
{
    for (uint64_t done = 0; done < bytes;) {
        struct uffdio_copy copy = {
            .dst = (uintptr_t)to + done,
            .src = (uintptr_t)from + done,
            .len = chunk < bytes - done ? chunk : bytes - done,
        };
        // An interrupted copy says in `copy` how many bytes it has copied.
        if (ioctl(uffd, UFFDIO_COPY, &copy) < 0 && (errno != EAGAIN || copy.copy <= 0))
            return -errno;
        done += (uint64_t)copy.copy;
    }
    return 0;
}

static void touch(unsigned char *base, uint64_t bytes)
{
    madvise(base, bytes, MADV_NOHUGEPAGE); // memory of huge pages refuses it, which does no harm
    for (uint64_t at = 0; at < bytes; at += 4096)
        *(volatile unsigned char *)(base + at) = (unsigned char)(at / 4096 % 255 + 1);
}

static int measure(uint64_t page_size, uint64_t bytes, uint64_t chunk, uint64_t *ret_ns)
{
    int uffd = -1;
    unsigned char *from = bench_map(bytes, 4096);
    unsigned char *to = bench_map(bytes, page_size);
    if (from == MAP_FAILED || to == MAP_FAILED)
        return -ENOMEM;
    touch(from, bytes);
    touch(to, bytes);
    munmap(to, bytes);
    to = bench_map(bytes, page_size);
    if (to == MAP_FAILED)
        return -ENOMEM;
    int err = register_memory(to, bytes, &uffd);
    if (err < 0)
        return err;
    uint64_t from_ns = bench_now_ns();
    err = copy_all(uffd, to, from, bytes, chunk);
    *ret_ns = bench_now_ns() - from_ns;
    if (err == 0 && memcmp(from, to, bytes) != 0)
        err = -EIO;
    close(uffd);
    return err;
}

// From the command line.
static uint64_t page_size, bytes, chunk;
static const struct bench_option options[] = {
    {.value = "PAGE", .large = &page_size, .required = true, .help = "4K or 2M"},
    {.value = "BYTES",
     .large = &bytes,
     .low = 1,
     .required = true,
     .help = "memory to fill, a multiple of PAGE"},
    {.value = "CHUNK",
     .large = &chunk,
     .low = 1,
     .required = true,
     .help = "bytes of one call, a multiple of PAGE"},
    BENCH_OPTIONS_END,
};
static const struct bench_command command = {
    .program = "bulk_copy",
    .about = "Fills registered memory as fast as one thread can, and prints as JSON how long it "
             "took.",
    .option = options,
};

int main(int argc, char **argv)
{
    uint64_t ns = 0;
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    if (page_size != 4096 && page_size != 2u << 20)
        return bench_options_refuse(&command, "PAGE is 4K or 2M");
    if (bytes % page_size != 0 || chunk % page_size != 0)
        return bench_options_refuse(&command, "BYTES and CHUNK are multiples of PAGE");
    int err = measure(page_size, bytes, chunk, &ns);
    if (err < 0) {
        fprintf(stderr, "bulk_copy: %" PRIu64 " bytes in pages of %" PRIu64 ": %s\n", bytes,
                page_size, strerror(-err));
        return 1;
    }
    printf("{\"page_size\":%" PRIu64 ",\"chunk\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"seconds\":%.6f}\n",
           page_size, chunk, bytes, (double)ns / 1e9);
    return 0;
}
