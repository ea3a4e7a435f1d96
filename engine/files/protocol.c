// SPDX-License-Identifier: Apache-2.0
#include "engine/files/protocol.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

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
