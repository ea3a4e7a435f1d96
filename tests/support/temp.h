// SPDX-License-Identifier: Apache-2.0
//
// A directory of a test's own, removed whatever becomes of the test. Failures end the program.
#ifndef FAULTLINE_TESTS_SUPPORT_TEMP_H
#define FAULTLINE_TESTS_SUPPORT_TEMP_H

enum { TEST_PATH = 512 };

// A new directory below $TMPDIR (/tmp), made by temp_make().
struct temp {
    char path[TEST_PATH];
    int janitor; // a process that removes the directory if this end of a pipe closes
};
void temp_make(struct temp *temp);
void temp_remove(const struct temp *temp);
// "DIR/NAME" in a static ring of 16 buffers.
const char *temp_path(const struct temp *temp, const char *name);

#endif
