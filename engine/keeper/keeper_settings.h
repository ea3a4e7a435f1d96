// SPDX-License-Identifier: Apache-2.0
//
// The configuration file as its bytes were when they were read. A keeper reads the file when it
// starts and at each upgrade, and hands what it has read to engines and to its successor: an engine
// that replaces a dead one must not depend on what is in the file just then. What the bytes mean is
// for the command to say: a new version may know more names than the keeper that has read them.
#ifndef FAULTLINE_KEEPER_KEEPER_SETTINGS_H
#define FAULTLINE_KEEPER_KEEPER_SETTINGS_H

#include <stdbool.h>

// Sealed memfds, or -1.
struct fl_settings {
    int started; // what the server was started with
    int current; // the file at the last reload; the same descriptor until there is one
};

// Reads the file into a sealed memfd. NULL, and a file that need not exist and does not, are an
// empty one. 0 or -errno; -EFBIG beyond a megabyte.
int fl_settings_read(const char *path, bool must_exist, int *ret_fd);
// Makes a sealed memfd of these bytes. 0 or -errno.
int fl_settings_make(const char *text, unsigned long bytes, int *ret_fd);

// Takes what a keeper has passed on to this process, once. False if there is nothing.
bool fl_settings_inherit(struct fl_settings *ret_settings);
// Before the first fl_settings_pass_on(): that one allocates nothing.
void fl_settings_prepare(void);
// Passes them on to the program that this process becomes.
void fl_settings_pass_on(const struct fl_settings *settings);
// After an exec that failed.
void fl_settings_keep(const struct fl_settings *settings);
void fl_settings_close(const struct fl_settings *settings);

#endif
