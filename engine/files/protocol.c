// SPDX-License-Identifier: Apache-2.0
#include "engine/files/protocol.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum {
    MINOR_LEAST = 31, // Linux 5.4
    MINOR = 37,       // Linux 6.1, whose header this is written for
    MAX_WRITE = 4096, // the least: it is read-only
    BACKGROUND =
        64, // READs ahead of use at a time; the kernel's own default, 12, is few for many VMs
    CONGESTED = 48,
};

int fl_fuse_answer_parts(int device, uint64_t unique, struct iovec *iov, int count)
{
    struct fuse_out_header header = {.len = sizeof(header), .unique = unique};
    iov[0] = (struct iovec){&header, sizeof(header)};
    for (int i = 1; i < count; i++)
        header.len += (uint32_t)iov[i].iov_len;
    return writev(device, iov, count) < 0 ? -errno : 0;
}

int fl_fuse_answer(int device, uint64_t unique, int error, const void *data, size_t bytes)
{
    struct fuse_out_header header = {
        .len = (uint32_t)(sizeof(header) + (error ? 0 : bytes)), .error = error, .unique = unique};
    const struct iovec iov[2] = {{&header, sizeof(header)}, {(void *)(uintptr_t)data, bytes}};
    return writev(device, iov, error || bytes == 0 ? 1 : 2) < 0 ? -errno : 0;
}

int fl_fuse_resend(int device)
{
    const struct fuse_out_header header = {.len = sizeof(header), .error = FL_FUSE_NOTIFY_RESEND};
    return write(device, &header, sizeof(header)) < 0 ? -errno : 0;
}

int fl_fuse_answer_init(int device, uint64_t unique, const struct fuse_init_in *in, size_t bytes)
{
    struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION,
                                .minor = MINOR,
                                .max_write = MAX_WRITE,
                                .max_background = BACKGROUND,
                                .congestion_threshold = CONGESTED,
                                .time_gran = 1};
    if (in->major != FUSE_KERNEL_VERSION || in->minor < MINOR_LEAST) {
        fl_fuse_answer(device, unique, -EPROTO, NULL, 0);
        return -EPROTO;
    }
    out.minor = in->minor < MINOR ? in->minor : MINOR;
    out.max_readahead = in->max_readahead;
    uint64_t offered = in->flags;
    if (in->flags & FUSE_INIT_EXT && bytes >= offsetof(struct fuse_init_in, unused))
        offered |= (uint64_t)in->flags2 << 32;
    uint64_t wanted =
        offered & (FUSE_ASYNC_READ | FUSE_PARALLEL_DIROPS | FUSE_INIT_EXT | FL_FUSE_HAS_RESEND);
    out.flags = (uint32_t)wanted;
    out.flags2 = (uint32_t)(wanted >> 32);
    return fl_fuse_answer(device, unique, 0, &out, sizeof(out));
}
