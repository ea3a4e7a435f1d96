// SPDX-License-Identifier: Apache-2.0
//
// How optimize and pack report that an image was laid out by its trace.
#ifndef FAULTLINE_TOOLS_VERBS_OPTIMIZE_REPORT_H
#define FAULTLINE_TOOLS_VERBS_OPTIMIZE_REPORT_H

#include <jansson.h>

#include "snapshot/store.h"

// Returns the object that docs/json.md describes, or NULL without memory. The caller owns it.
json_t *optimize_json(const char *name, const struct fl_optimize_result *result);
// Prints the result on stdout, and a sentence on stderr if the index of the store at dir has
// trouble.
void optimize_print(const char *verb, const char *dir, const char *name,
                    const struct fl_optimize_result *result);

#endif
