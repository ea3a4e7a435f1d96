// SPDX-License-Identifier: Apache-2.0
#include "snapshot/pack_name.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "snapshot/format.h"

void fl_pack_name(uint64_t id, char ret_name[FL_PACK_NAME_BYTES])
{
    snprintf(ret_name, FL_PACK_NAME_BYTES, "%016" PRIx64 ".pack", id);
}

int fl_pack_parse_name(const char *name, uint64_t *ret_id)
{
    uint64_t id = 0;
    for (int i = 0; i < 16; i++) {
        if (!isdigit((unsigned char)name[i]) && (name[i] < 'a' || name[i] > 'f'))
            return -EINVAL;
        id = id << 4 | (uint64_t)(name[i] <= '9' ? name[i] - '0' : name[i] - 'a' + 10);
    }
    if (strcmp(name + 16, ".pack") != 0 || id == 0 || id & FL_PACK_ID_RAW)
        return -EINVAL;
    *ret_id = id;
    return 0;
}
