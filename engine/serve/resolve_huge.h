// SPDX-License-Identifier: Apache-2.0
//
// Where the bytes of a page of 2 MiB are. Owner worker only.
#ifndef FAULTLINE_SERVE_RESOLVE_HUGE_H
#define FAULTLINE_SERVE_RESOLVE_HUGE_H

#include "engine/serve/want.h"

enum fl_outcome fl_resolve_huge(struct fl_want *want);

#endif
