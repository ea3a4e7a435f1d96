// SPDX-License-Identifier: Apache-2.0
//
// Converts between a pack's id and its file name. Any thread.
#ifndef FAULTLINE_SNAPSHOT_PACK_NAME_H
#define FAULTLINE_SNAPSHOT_PACK_NAME_H

#include <stdint.h>

#define FL_PACK_NAME_BYTES 24 // "0123456789abcdef.pack" and NUL

void fl_pack_name(uint64_t id, char ret_name[FL_PACK_NAME_BYTES]);
// Returns the id in a file name of packs/. -EINVAL: it is not the name of a pack.
int fl_pack_parse_name(const char *name, uint64_t *ret_id);

#endif
