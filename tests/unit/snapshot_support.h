// SPDX-License-Identifier: Apache-2.0
//
// Memory files, stores and comparisons for the tests of snapshot/. Failures are negative errno or
// false: the tests assert. One thread.
#ifndef FAULTLINE_TESTS_SNAPSHOT_SUPPORT_H
#define FAULTLINE_TESTS_SNAPSHOT_SUPPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "snapshot/read.h"
#include "snapshot/store.h"

// A directory of the test's own, with a store to be made in it.
struct workspace {
    char dir[64];
    char store[96];
    char memory[96]; // a memory file
    char output[96];
};

int workspace_make(struct workspace *workspace);
void workspace_remove(const struct workspace *workspace);
void remove_tree(const char *path);

// $FAULTLINE_SEED or a random one; printed, so that a failure can be repeated.
uint64_t test_seed(void);
uint64_t test_random(uint64_t *state);

// A file of this size: holes, zero pages, duplicates, noise and compressible pages in runs.
int make_memory(const char *path, uint64_t bytes, uint64_t *state);
// A file of pages that are all different: page n of it is noise made from `first` + n. Half of each
// page is compressible.
int make_pages(const char *path, uint64_t first, uint64_t count);
void fill_page(void *page, uint64_t number);

bool same_files(const char *left, const char *right);
// True if every page that the image gives, through its runs and frames, is the file's.
bool image_is_file(const struct fl_image *image, const char *path);
// fl_frame_read() by way of fl_frame_place() and fl_frame_unpack().
int read_in_two_steps(const struct fl_image *image, struct fl_frame_id id, char *frame,
                      size_t frame_bytes);
// The number of files in a directory of the store; -1 if it cannot be read.
int count_files(const char *store, const char *part);
// The path of the only file in the directory.
int only_file(const char *store, const char *part, char *ret_path, size_t size);

// Opens the store, does one thing, closes it.
int pack_file(const char *store, const char *name, const char *path,
              struct fl_pack_result *ret_result);
int unpack_file(const char *store, const char *name, const char *path);
int verify_store(const char *store, uint64_t *ret_bad);
int collect_store(const char *store, bool rebuild, struct fl_gc_result *ret_result);
int remove_image(const char *store, const char *name);
int inspect_image(const char *store, const char *name, struct fl_image_detail *ret_detail);

int merge_trace(const char *store, const char *name, const struct fl_recording *recordings,
                unsigned count, bool replace);
int remove_trace(const char *store, const char *name);
int read_trace(const char *store, const char *name, struct fl_recording *ret_recording);
// As the engine does.
int open_trace(const char *store, const char *name, struct fl_trace **ret_trace);

int open_image(const char *store, const char *name, struct fl_image **ret_image);
// fl_image_open_files(), and all of the map is read.
int open_files(const int *fds, uint32_t count, struct fl_image **ret_image);
// Descriptors of this process; the one that counts is always among them.
int count_descriptors(void);

enum { TOP_PACKS = 3, TOP_FILES = TOP_PACKS + 1, FILES_ROOM = 8 };

// Duplicates of the image's descriptors, as a process has to which they are sent: their number.
int duplicate_files(const struct fl_image *image, int ret_fds[FILES_ROOM]);
// A store with an image "top", of the workspace's memory file, whose pages are in TOP_PACKS packs:
// those of "left", those of "right", and its own. The pack of "other" is none of them, though of
// the same size.
int make_top(const struct workspace *workspace);
// Opens "top", duplicates its descriptors, closes it.
int top_files(const struct workspace *workspace, int ret_fds[FILES_ROOM]);

#endif
