// SPDX-License-Identifier: Apache-2.0
//
// What is wrong with the userfaultfds of this host: which process holds each, whose memory it is,
// which tasks wait on it, and since when. Reads /proc only, so that it works on a host on which
// everything else hangs, and whatever the handler is. Needs root for other users' processes. Any
// thread; the more processes the host has, the longer it takes.
#ifndef FAULTLINE_DOCTOR_DOCTOR_H
#define FAULTLINE_DOCTOR_DOCTOR_H

#include <stdint.h>

#include "engine/doctor/diagnosis.h"

// `patience_ms`: how long a fault may wait before it is trouble. What looks like trouble is looked
// at again, 250 ms later: it is if the same tasks have slept all the time. Where the kernel does
// not say since when a task waits, they are watched for as long as the patience. -ENOMEM, or -errno
// if /proc cannot be read.
int fl_diagnose(int64_t patience_ms, struct fl_diagnosis *ret_diagnosis);

#endif
