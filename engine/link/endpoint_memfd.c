// SPDX-License-Identifier: Apache-2.0
#include "engine/link/endpoint_memfd.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LEAST = offsetof(struct fl_endpoint, template) };

int fl_endpoint_write(const struct fl_endpoint *endpoint)
{
    int fd = memfd_create("faultline-listener", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (write(fd, endpoint, sizeof(*endpoint)) == (ssize_t)sizeof(*endpoint))
        return fd;
    int error = errno ? -errno : -EIO;
    close(fd);
    return error;
}

int fl_endpoint_read(int fd, struct fl_endpoint *ret_description)
{
    struct fl_endpoint endpoint = {0};
    if (pread(fd, &endpoint, sizeof(endpoint), 0) < (ssize_t)LEAST ||
        endpoint.magic != FL_ENDPOINT_MAGIC ||
        !memchr(endpoint.image, '\0', sizeof(endpoint.image)) ||
        !memchr(endpoint.path, '\0', sizeof(endpoint.path)))
        return -EINVAL;
    if (endpoint.version != FL_ENDPOINT_VERSION)
        return -EPROTONOSUPPORT;
    if (endpoint.huge > FL_HUGE_AFTER_REPLAY) // of a later version
        endpoint.huge = FL_HUGE_DEFAULT;
    *ret_description = endpoint;
    return 0;
}
