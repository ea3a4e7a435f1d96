// SPDX-License-Identifier: Apache-2.0
//
// The wire of /dev/fuse: answers, and what <linux/fuse.h> of older kernels does not name. Any
// thread; a write to the device does not wait.
#ifndef FAULTLINE_FILES_PROTOCOL_H
#define FAULTLINE_FILES_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <linux/fuse.h>

#include "engine/host/fuse_init.h"

enum { FL_FUSE_NOTIFY_RESEND = 7 };
// The kernel sets it in the number of a request that is sent again. An answer has it, too.
#define FL_FUSE_RESENT (UINT64_C(1) << 63)

// A READ asks for FL_FUSE_READ_MOST bytes at most, which may begin and end within a page.
enum { FL_FUSE_READ_MOST = 128 << 10, FL_FUSE_PAGES_MOST = (FL_FUSE_READ_MOST >> 12) + 1 };

// Answers the request with `error` (0 or -errno) or with data. 0; -ENOENT: it is not asked any
// more, or another engine has taken it over; -ENODEV: the connection is gone.
int fl_fuse_answer(int device, uint64_t unique, int error, const void *data, size_t bytes);
// The same, with the data in iov[1..count); iov[0] is for the header.
int fl_fuse_answer_parts(int device, uint64_t unique, struct iovec *iov, int count);
// Has the kernel send again what was read by any process and not answered. -EINVAL: this kernel
// cannot (before Linux 6.9).
int fl_fuse_resend(int device);

#endif
