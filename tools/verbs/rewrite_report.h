// SPDX-License-Identifier: Apache-2.0
//
// What recompress and gc --compact print of rewritten packs. Main thread.
#ifndef FAULTLINE_TOOLS_VERBS_REWRITE_REPORT_H
#define FAULTLINE_TOOLS_VERBS_REWRITE_REPORT_H

#include <jansson.h>

#include "snapshot/store.h"

// Returns the object that docs/json.md describes under "recompress", or NULL without memory.
json_t *rewrite_json(const struct fl_rewrite_result *result);
// `did` is what happened, such as "recompressed".
void rewrite_print(const char *did, const struct fl_rewrite_result *result);
// Warns of what was left as it was.
void rewrite_warn(const char *verb, const char *dir, const struct fl_rewrite_result *result);

#endif
