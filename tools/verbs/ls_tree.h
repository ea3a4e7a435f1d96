// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_TOOLS_VERBS_LS_TREE_H
#define FAULTLINE_TOOLS_VERBS_LS_TREE_H

#include <stddef.h>

#include "snapshot/store.h"

// Prints the images, each below its parent. Returns an exit status.
int ls_print_tree(struct fl_store *store, char *const *names, size_t count);

#endif
