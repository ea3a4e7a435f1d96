// SPDX-License-Identifier: Apache-2.0
#include "engine/vm/choices.h"

#include <string.h>

static const char *const names[] = {
    [FL_HUGE_DEFAULT] = "default", [FL_HUGE_OFF] = "off", [FL_HUGE_AFTER_REPLAY] = "after-replay"};

bool fl_huge_parse(const char *text, enum fl_huge *ret_huge)
{
    for (int i = FL_HUGE_OFF; i <= FL_HUGE_AFTER_REPLAY; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret_huge = (enum fl_huge)i;
            return true;
        }
    }
    return false;
}

const char *fl_huge_name(enum fl_huge huge)
{
    return names[huge];
}
