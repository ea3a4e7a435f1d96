// SPDX-License-Identifier: Apache-2.0
//
// What optimize and pack say of laying an image out by its trace.
#ifndef FAULTLINE_TOOLS_VERBS_OPTIMIZE_REPORT_H
#define FAULTLINE_TOOLS_VERBS_OPTIMIZE_REPORT_H

#include <jansson.h>

#include "snapshot/store.h"

json_t *optimize_json(const char *name, const struct fl_optimize_result *result); // NULL: no memory
// dir: of the store.
void optimize_print(const char *verb, const char *dir, const char *name,
                    const struct fl_optimize_result *result);

#endif
