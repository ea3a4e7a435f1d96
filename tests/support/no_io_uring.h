// SPDX-License-Identifier: Apache-2.0
//
// A process, and all that it starts, without io_uring: as containers and hardened hosts have it.
#ifndef FAULTLINE_TESTS_SUPPORT_NO_IO_URING_H
#define FAULTLINE_TESTS_SUPPORT_NO_IO_URING_H

#include <stdbool.h>

// From now on io_uring_setup() fails with EPERM. False if that could not be had.
bool deny_io_uring(void);
// The same of io_uring_enter(): a ring can be made, and is of no use.
bool deny_io_uring_use(void);
// Whether it works now.
bool has_io_uring(void);

#endif
