// SPDX-License-Identifier: Apache-2.0
//
// A swap file of a test's own. It goes whatever becomes of the test: a process of its own waits for
// the test's end.
#ifndef FAULTLINE_TESTS_SUPPORT_SWAP_H
#define FAULTLINE_TESTS_SUPPORT_SWAP_H

#include <stdbool.h>
#include <stdint.h>

// A new file at `path`, used as swap. False: not root, or not on this file system. Once a test.
bool swap_on(const char *path, uint64_t bytes);
// Before the file's directory is removed. Nothing, if there is none.
void swap_off(void);

#endif
