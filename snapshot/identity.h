// SPDX-License-Identifier: Apache-2.0
//
// Page identities: SHA-256. A guest chooses its pages' bytes, so nothing weaker will do.
#ifndef FAULTLINE_SNAPSHOT_IDENTITY_H
#define FAULTLINE_SNAPSHOT_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>

#include "snapshot/format.h"

// The identity of a page of zeros.
extern const struct fl_identity fl_zero_identity;

struct fl_hasher; // one thread at a time

int fl_hasher_new(struct fl_hasher **ret_hasher);
void fl_hasher_free(struct fl_hasher *hasher); // NULL is a no-op
int fl_hash_page(struct fl_hasher *hasher, const void *page, struct fl_identity *ret_identity);

// A digest of many parts: start, then update, then finish.
int fl_hash_start(struct fl_hasher *hasher);
int fl_hash_update(struct fl_hasher *hasher, const void *bytes, size_t len);
int fl_hash_finish(struct fl_hasher *hasher, struct fl_identity *ret_identity);

#endif
