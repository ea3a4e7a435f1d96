// SPDX-License-Identifier: Apache-2.0
//
// How a FUSE connection begins: the kernel's INIT and its answer. Any thread.
#ifndef FAULTLINE_HOST_FUSE_INIT_H
#define FAULTLINE_HOST_FUSE_INIT_H

#include <stddef.h>
#include <stdint.h>

#include <linux/fuse.h>

// Of Linux 6.9.
#define FL_FUSE_HAS_RESEND (UINT64_C(1) << 39)

// Answers INIT. -EPROTO: the kernel is too old, which it has been told.
int fl_fuse_answer_init(int device, uint64_t unique, const struct fuse_init_in *in, size_t bytes);
// Reads INIT from a device that was mounted just now, and answers it. Done by who mounts: an engine
// that was killed with it would leave the file system without a beginning where the kernel sends
// nothing again (before Linux 6.9). 0, -EPROTO as above, or -errno.
int fl_fuse_begin(int device);

#endif
