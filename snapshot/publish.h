// SPDX-License-Identifier: Apache-2.0
//
// Files that appear whole or not at all. A file is written in tmp/ and flushed, then it is renamed,
// and the directory is flushed.
#ifndef FAULTLINE_SNAPSHOT_PUBLISH_H
#define FAULTLINE_SNAPSHOT_PUBLISH_H

#include <stdbool.h>
#include <stdint.h>

struct fl_temp {
    int dir_fd; // not owned
    int fd;
    char name[64]; // "" once it is published or discarded
};

// Returns a random number that is not 0 and has the top bit clear.
int fl_random_id(uint64_t *ret_id);

// Creates a file of a random name with this suffix.
int fl_temp_create(int dir_fd, const char *suffix, struct fl_temp *ret_temp);
// Flushes the file, gives it its name and flushes the directory. -EEXIST: the name is taken
// (without replace); -EMEDIUMTYPE: the name is that of something that is not a regular file, which
// stays. If only the flush of the directory fails, the file is removed again and the replaced file
// is put back. The replaced file is removed by fl_temp_discard.
int fl_temp_publish(struct fl_temp *temp, int to_dir_fd, const char *to_name, bool replace);
// Closes the file, and removes it if it was not published. A second call is a no-op.
void fl_temp_discard(struct fl_temp *temp);
// Creates a file without a name, for data that does not fit into memory.
int fl_scratch_create(int dir_fd, int *ret_fd);

#endif
