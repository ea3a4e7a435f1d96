// SPDX-License-Identifier: Apache-2.0
#include "engine/vm/policy.h"

#include <string.h>

bool fl_policy_parse(const char *text, enum fl_policy *ret_policy)
{
    static const char *const name[] = {
        [FL_POLICY_POISON] = "poison", [FL_POLICY_KILL] = "kill", [FL_POLICY_AUTO] = "auto"};
    for (int i = FL_POLICY_POISON; i <= FL_POLICY_AUTO; i++) {
        if (strcmp(text, name[i]) == 0) {
            *ret_policy = (enum fl_policy)i;
            return true;
        }
    }
    return false;
}
