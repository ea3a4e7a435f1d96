// SPDX-License-Identifier: Apache-2.0
//
// The text of `faultline status`: one screen, what is wrong first.
#ifndef FAULTLINE_TOOLS_VERBS_STATUS_PAGE_H
#define FAULTLINE_TOOLS_VERBS_STATUS_PAGE_H

#include <stddef.h>

#include "tools/top/model.h"

// No line of it is longer, unless a single word is.
enum { STATUS_COLUMNS = 80 };

// Returns the text, which the caller frees, or NULL without memory. `most` is how many lines there
// may be; the VMs that matter least are left out, and counted. 0: all VMs. Sorts the model's VMs.
// Rates are in it if the model has them.
char *status_page(struct top_model *model, size_t most);
// The same where there is no answer.
char *status_page_lost(const char *control, const char *error);

// How many lines the terminal of standard output has; 24 if it is none.
size_t status_lines(void);
// Prints pages, one every interval_ms, until Ctrl-C. Returns an exit status.
int status_watch(const char *control, uint64_t interval_ms, bool all);

#endif
