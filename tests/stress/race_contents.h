// SPDX-License-Identifier: Apache-2.0
//
// What the images of store_race may be: a few names, and for each name a few memory files of
// different sizes that share pages with the others. Content c is of name c % RACE_NAMES alone, and
// only pages p with p % RACE_CONTENTS == c are ever recorded of it: so what a name shows and what a
// trace holds tell of what they are. Failures are said on stderr; one thread.
#ifndef FAULTLINE_TESTS_RACE_CONTENTS_H
#define FAULTLINE_TESTS_RACE_CONTENTS_H

#include <stdbool.h>
#include <stdint.h>

enum { RACE_NAMES = 3, RACE_CONTENTS = 9, RACE_PATH = 600 };

struct race_path {
    char text[RACE_PATH];
};

// The memory files, in this directory.
void race_make_memories(const char *dir);
struct race_path race_memory(const char *dir, unsigned content);
struct race_path race_name(unsigned name);
// An image that is there all the time, so that its trace can be taken over for the content, and
// that the content can be a child of.
struct race_path race_source(unsigned content);
struct race_path race_source_memory(const char *dir, unsigned content);
bool race_make_sources(const char *dir, const char *store);

// Opens the image of this name, if there is one, reads it again and again, and looks at its trace.
bool race_read(const char *dir, const char *store, unsigned name);
// Merges a recording into its trace.
bool race_record(const char *dir, const char *store, unsigned name, uint64_t seed);
// Whether a file is one of the memories of this name.
bool race_is_memory(const char *dir, const char *path, unsigned name);
// Of a store in which nobody works: collected and verified, it has nothing that nobody needs.
bool race_settle(const char *dir, const char *store);

#endif
