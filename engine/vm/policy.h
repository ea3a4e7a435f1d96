// SPDX-License-Identifier: Apache-2.0
//
// What becomes of a VM whose page cannot be had. Any thread.
#ifndef FAULTLINE_VM_POLICY_H
#define FAULTLINE_VM_POLICY_H

#include <stdbool.h>

enum fl_policy {
    FL_POLICY_DEFAULT, // as --on-error says
    FL_POLICY_POISON,
    FL_POLICY_KILL,
    FL_POLICY_AUTO, // kill where KVM makes accesses for the guest, which poison does not stop
};

// "auto", "poison" or "kill"; false if the text is none of them.
bool fl_policy_parse(const char *text, enum fl_policy *ret_policy);

#endif
