// SPDX-License-Identifier: Apache-2.0
//
// What a listener or a connection is for, in a memfd: so that a successor can go on with it. Any
// thread.
#ifndef FAULTLINE_LINK_ENDPOINT_MEMFD_H
#define FAULTLINE_LINK_ENDPOINT_MEMFD_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/base/image_name.h"
#include "engine/vm/choices.h"

#define FL_ENDPOINT_MAGIC 0x7473696c746c6166ULL // "faltlist"
enum { FL_ENDPOINT_VERSION = 1 };

// What a connection is for: a VM, or a VM that maps the image's template.
enum fl_purpose { FL_PURPOSE_VM, FL_PURPOSE_TEMPLATE };

struct fl_endpoint {
    uint64_t magic;
    uint32_t version;
    uint32_t automatic; // made for an image of the store, goes with it
    uint64_t dev;       // of the socket's file: it is removed only while it is ours
    uint64_t ino;
    uint32_t policy;  // enum fl_policy, of its VMs
    uint32_t purpose; // enum fl_purpose
    char image[FL_IMAGE_NAME_BYTES];
    char path[PATH_MAX];
    // Not in those of versions before: read as 0.
    uint64_t template; // of a connection that was sent one: its record
    // Of a listener: owner and mode of its socket, to be made again.
    uint32_t has_access;
    uint32_t mode;
    uint32_t uid; // (uid_t)-1: left as it is
    uint32_t gid;
    uint32_t huge; // enum fl_huge, of its VMs
};

// A new memfd, or -errno.
int fl_endpoint_write(const struct fl_endpoint *endpoint);
// -EINVAL if that is none, -EPROTONOSUPPORT if it is of another version.
int fl_endpoint_read(int fd, struct fl_endpoint *ret_description);

#endif
