// SPDX-License-Identifier: Apache-2.0
#include "snapshot/io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "snapshot/format.h"

void fl_cleanup_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

void fl_cleanup_free(void *pointer)
{
    free(*(void **)pointer);
}

int fl_pread_full(int fd, void *buf, size_t len, uint64_t offset)
{
    char *at = buf;
    while (len > 0) {
        ssize_t got = pread(fd, at, len, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            return -EBADMSG;
        at += got;
        len -= (size_t)got;
        offset += (uint64_t)got;
    }
    return 0;
}

int fl_pwrite_full(int fd, const void *buf, size_t len, uint64_t offset)
{
    const char *at = buf;
    while (len > 0) {
        ssize_t put = pwrite(fd, at, len, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -errno;
        if (put == 0)
            return -EIO;
        at += put;
        len -= (size_t)put;
        offset += (uint64_t)put;
    }
    return 0;
}

int fl_sync_dir(int dir_fd)
{
    return fsync(dir_fd) < 0 ? -errno : 0;
}

int fl_file_size(int fd, uint64_t *ret_bytes)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    *ret_bytes = (uint64_t)st.st_size;
    return 0;
}

static void *map_memory(size_t bytes, int advice)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, bytes, MADV_DONTDUMP);
    if (bytes >= (size_t)2 << 20)
        madvise(memory, bytes, advice);
    return memory;
}

void *fl_map_memory(size_t bytes)
{
    return map_memory(bytes, MADV_HUGEPAGE);
}

void *fl_map_small_pages(size_t bytes)
{
    return map_memory(bytes, MADV_NOHUGEPAGE);
}

void fl_unmap(void *memory, size_t bytes)
{
    if (memory)
        munmap(memory, bytes);
}

uint64_t fl_checksum(const void *bytes, size_t len)
{
    return XXH3_64bits(bytes, len);
}

int fl_read_header(int fd, const uint8_t *magic, uint32_t newest, void *ret_header, size_t size,
                   uint64_t *ret_file_bytes)
{
    uint32_t version;
    uint64_t checksum;
    const uint8_t *bytes = ret_header;
    int r = fl_file_size(fd, ret_file_bytes);
    if (r < 0)
        return r == -EINVAL ? -EBADMSG : r;
    r = fl_pread_full(fd, ret_header, size, 0);
    if (r < 0)
        return r;
    memcpy(&version, bytes + FL_MAGIC_BYTES, sizeof(version));
    memcpy(&checksum, bytes + size - sizeof(checksum), sizeof(checksum));
    if (memcmp(bytes, magic, FL_MAGIC_BYTES) != 0 ||
        checksum != fl_checksum(bytes, size - sizeof(checksum)))
        return -EBADMSG;
    return version >= 1 && version <= newest ? 0 : -EPROTONOSUPPORT;
}
