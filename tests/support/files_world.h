// SPDX-License-Identifier: Apache-2.0
//
// A world whose server has its images mounted as files, and clients that map one. For Criterion.
//
// A thread that waits for a page of such a file cannot be killed while nothing answers: whatever
// becomes of a test, files_close() aborts the connection before it waits for a client.
#ifndef FAULTLINE_TESTS_SUPPORT_FILES_WORLD_H
#define FAULTLINE_TESTS_SUPPORT_FILES_WORLD_H

#include "tests/support/world.h"

// Skips the test without /dev/fuse; mounts fusectl if it is not.
void need_fuse(void);
// As world_make() and world_serve() with --files; `failing`: with failing_calls.c loaded, in tests
// that have it. Of `extra` (may be NULL) 12 at most.
struct world *files_make(enum world_memory kind, uint64_t bytes);
void files_serve(struct world *world, const char *const *extra);
// The arguments for that: a static array.
const char *const *files_options(const struct world *world, const char *const *extra);
// In the suite's .fini: ends what is left of clients and mounts, then world_close().
void files_close(void);

const char *files_path(const struct world *world, const char *image);
// The mapping of the whole file, private and writable; NULL.
uint8_t *files_map(const char *path, uint64_t *ret_bytes);
// In a client: touches pages in a random order, each of `threads` its own, and compares all bytes.
void files_check(const struct memory *memory, const uint8_t *map, unsigned threads, uint64_t seed);
// In a client: drops what the page cache has of the file, as far as no mapping holds it.
void files_forget(const char *path);
// Whether something is mounted there.
bool files_mounted(const struct world *world);
// How many requests of the kernel wait; -1: there is no such connection.
int files_waiting(const struct world *world);

#endif
