// SPDX-License-Identifier: Apache-2.0
//
// The file door: the images of the store as files of a read-only file system (FUSE), whose pages
// come as they are touched, from the same images, cache and readers that faults use. The keeper
// mounts it and holds its descriptor; see README.md for how it outlives an engine.
//
// Control thread, unless a function says otherwise.
#ifndef FAULTLINE_FILES_FILES_H
#define FAULTLINE_FILES_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/files/files_options.h"

struct fl_files;
struct fl_image;
struct fl_mail;

// There is no door until the keeper's record has come. 0 or -errno.
int fl_files_new(const struct fl_files_options *options, struct fl_files **ret_files);
// Ends the thread: what it has in hand is left to a successor, or to the end of the connection.
// NULL is a no-op for all of the following.
void fl_files_stop(struct fl_files *files);
// When no reader delivers any more.
void fl_files_free(struct fl_files *files);

// The keeper's record: the number of the connection, 0 if it is not known, and its descriptors, of
// which those that it takes are -1 after this.
void fl_files_adopt(struct fl_files *files, uint64_t connection, int fds[]);
// An inherited image was opened; NULL: it cannot be.
void fl_files_image_opened(struct fl_files *files, uint64_t record, struct fl_image *image);
// All records have come, and no other engine serves: calls are answered from now on.
void fl_files_serve(struct fl_files *files);
// No file is opened any more; open ones are served.
void fl_files_refuse(struct fl_files *files);
// Has a new keeper hold it.
void fl_files_keep(const struct fl_files *files);

// Whether its thread runs, and whether that has nothing to do: it sleeps, no call is in hand, and
// the kernel asks nothing.
bool fl_files_runs(const struct fl_files *files);
bool fl_files_rests(struct fl_files *files);
// Posts mail to its thread, which must run: deliver() is called there.
void fl_files_post(struct fl_files *files, struct fl_mail *mail);

// Any thread. The path of an image's file has been opened, or mapped, and not been let go.
uint64_t fl_files_open(const struct fl_files *files);
// Any thread. How long the oldest call waits.
uint64_t fl_files_oldest_ns(const struct fl_files *files);

struct fl_files_stats {
    bool there;
    uint64_t open;    // files that are open or mapped
    uint64_t waiting; // calls in hand
    uint64_t oldest_ns;
    uint64_t reads;
    uint64_t bytes;
    uint64_t waited;
    uint64_t failed;
    uint64_t held;
    uint64_t interrupted;
    uint64_t resent;
    uint64_t opens;
};
// Any thread.
struct fl_files_stats fl_files_stats(const struct fl_files *files);

#endif
