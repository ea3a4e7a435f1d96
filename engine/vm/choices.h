// SPDX-License-Identifier: Apache-2.0
//
// What a VM's listener can say otherwise than the server's options. Any thread.
#ifndef FAULTLINE_VM_CHOICES_H
#define FAULTLINE_VM_CHOICES_H

#include <stdbool.h>

#include "engine/vm/policy.h"

// Whether a working set becomes pages of 2 MiB without a pool (ahead/collapse.h).
enum fl_huge {
    FL_HUGE_DEFAULT, // as --huge says
    FL_HUGE_OFF,
    FL_HUGE_AFTER_REPLAY,
};

// All zero: as the server's options say.
struct fl_choices {
    enum fl_policy policy;
    enum fl_huge huge;
};

// "off" or "after-replay"; false if the text is neither.
bool fl_huge_parse(const char *text, enum fl_huge *ret_huge);
// Also "default".
const char *fl_huge_name(enum fl_huge huge);

#endif
