// SPDX-License-Identifier: Apache-2.0
//
// A pack's id and its file name. Any thread.
#ifndef FAULTLINE_SNAPSHOT_PACK_NAME_H
#define FAULTLINE_SNAPSHOT_PACK_NAME_H

#include <stdint.h>

#define FL_PACK_NAME_BYTES 24 // "0123456789abcdef.pack" and NUL

void fl_pack_name(uint64_t id, char ret_name[FL_PACK_NAME_BYTES]);
// The id in a file name of packs/. -EINVAL if it is no pack's name.
int fl_pack_parse_name(const char *name, uint64_t *ret_id);

#endif
