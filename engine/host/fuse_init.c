// SPDX-License-Identifier: Apache-2.0
#include "engine/host/fuse_init.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    MINOR_LEAST = 31, // Linux 5.4
    MINOR = 37,       // Linux 6.1, whose header this is written for
    MAX_WRITE = 4096, // the least: it is read-only
    BACKGROUND =
        64, // READs ahead of use at a time; the kernel's own default, 12, is few for many VMs
    CONGESTED = 48,
};

static int answer(int device, uint64_t unique, int error, const struct fuse_init_out *out)
{
    struct fuse_out_header header = {.len = sizeof(header), .error = error, .unique = unique};
    const struct iovec iov[2] = {{&header, sizeof(header)}, {(void *)(uintptr_t)out, sizeof(*out)}};
    if (!error)
        header.len += sizeof(*out);
    return writev(device, iov, error ? 1 : 2) < 0 ? -errno : 0;
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
        answer(device, unique, -EPROTO, &out);
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
    return answer(device, unique, 0, &out);
}

int fl_fuse_begin(int device)
{
    struct {
        struct fuse_in_header in;
        union {
            struct fuse_init_in init;
            char most[FUSE_MIN_READ_BUFFER - sizeof(struct fuse_in_header)]; // the kernel's least
        };
    } request;
    ssize_t got = read(device, &request, sizeof(request));
    if (got < 0)
        return -errno;
    size_t least = sizeof(request.in) + offsetof(struct fuse_init_in, flags2);
    if ((size_t)got < least || request.in.opcode != FUSE_INIT)
        return -EPROTO;
    return fl_fuse_answer_init(device, request.in.unique, &request.init,
                               (size_t)got - sizeof(request.in));
}
