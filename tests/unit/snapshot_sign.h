// SPDX-License-Identifier: Apache-2.0
//
// Files of a store in memory: their checksums made right again, as no accident does; and files as
// version 1 had them.
#ifndef FAULTLINE_TESTS_UNIT_SNAPSHOT_SIGN_H
#define FAULTLINE_TESTS_UNIT_SNAPSHOT_SIGN_H

#include <stddef.h>
#include <stdint.h>

// Whatever is in them: what lies outside of the file is left alone.
void sign_image(uint8_t *bytes, size_t used);
void sign_pack(uint8_t *bytes, size_t used);

// A right file of version 2 as one of version 1, in memory from malloc; its length.
uint8_t *image_version_1(const uint8_t *bytes, size_t used, size_t *ret_used);
uint8_t *pack_version_1(const uint8_t *bytes, size_t used, size_t *ret_used);

#endif
