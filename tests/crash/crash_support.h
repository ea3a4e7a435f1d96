// SPDX-License-Identifier: Apache-2.0
//
// The command is killed, or its calls fail, at a call that changes a file (crash_shim.c). State is
// the process's, and Criterion gives each test its own.
#ifndef FAULTLINE_TESTS_CRASH_SUPPORT_H
#define FAULTLINE_TESTS_CRASH_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "tests/unit/snapshot_support.h"

enum { ROUNDS_MAX = 400 };

extern struct workspace space;
extern char base[96];   // a store with the image "first", of space.memory
extern char second[96]; // a memory file that shares half of its pages with "first"
extern char log_path[96];

void crash_setup(void);
void crash_teardown(void);

// Runs the command to its end, with its output in log_path; returns what waitpid says. crash_at 0:
// nothing is done to it. crash_errno 0: killed before that call; else that call and all later ones
// that need space fail with it.
int run(const char *const *argv, long crash_at, int crash_errno);
bool was_killed(int status);
const char *faultline(void);
int run_pack(const char *store, const char *name, const char *memory, long at, int error);
void copy_base(void); // to space.store
void read_log(char *text, size_t size);

bool has_image(const char *name);
void expect_image(const char *name, const char *memory, long round);

#endif
