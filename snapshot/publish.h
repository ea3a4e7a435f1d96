// SPDX-License-Identifier: Apache-2.0
//
// Files that appear whole or not at all: written in tmp/, flushed, renamed, the directory flushed.
#ifndef FAULTLINE_SNAPSHOT_PUBLISH_H
#define FAULTLINE_SNAPSHOT_PUBLISH_H

#include <stdbool.h>
#include <stdint.h>

struct fl_temp {
    int dir_fd; // not owned
    int fd;
    char name[64]; // "" once it is published or discarded
};

// A random number that is not 0 and has the top bit clear.
int fl_random_id(uint64_t *ret_id);

// Creates a file of a random name with this suffix.
int fl_temp_create(int dir_fd, const char *suffix, struct fl_temp *ret_temp);
// Flushes the file, gives it its name and flushes the directory. -EEXIST without replace;
// -EMEDIUMTYPE: what is there is no regular file, and stays. If only
// the directory's flush fails the file has its name, but may lose it in a power failure: it is
// removed, and what it has replaced is put back. What was replaced goes with fl_temp_discard.
int fl_temp_publish(struct fl_temp *temp, int to_dir_fd, const char *to_name, bool replace);
// Closes the file, and removes it if it has not been published. Harmless a second time.
void fl_temp_discard(struct fl_temp *temp);
// A file without a name, for what does not fit into memory.
int fl_scratch_create(int dir_fd, int *ret_fd);

#endif
