// SPDX-License-Identifier: Apache-2.0
//
// A store with an image whose frames can be damaged, and the verbs that meet such frames. They
// assert. State is the process's, and Criterion gives each test its own.
#ifndef FAULTLINE_TESTS_REPAIR_SUPPORT_H
#define FAULTLINE_TESTS_REPAIR_SUPPORT_H

#include "tests/unit/snapshot_support.h"

enum { PAGES = 96, FRAMES = PAGES / FL_FRAME_PAGES };

extern struct workspace space; // with the image "first", of space.memory
extern char child[96];         // a memory file with its pages and 16 more
extern char pack_path[256];    // of image "first": the pack that is damaged

void repair_setup(void);
void repair_teardown(void);

// All of a frame's bytes: nothing is left to be saved. A second time makes it right again.
void damage_frame(uint32_t frame);
// The same of the only pack there is.
void damage_frame_of_only_pack(uint32_t frame);
// The frame says that it is right, but a literal byte of a page is another one.
void falsify_frame(uint32_t frame);
void damage_identities(void);

struct fl_pack_result pack(const char *name, const char *memory, bool trust);
struct fl_repair_result repair(const char *memory, const char *other, bool dry_run);
struct fl_verify_result verify(void);
void expect_right(const char *name, const char *memory);
void expect_unreadable(const char *name);

void list_path(char path[160]); // of the list of bad frames
uint64_t listed(void);          // its entries

#endif
