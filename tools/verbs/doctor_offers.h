// SPDX-License-Identifier: Apache-2.0
//
// What the doctor says of images on offer whose process was killed: VMs that were restored from one
// lack pages. Main thread.
#ifndef FAULTLINE_TOOLS_VERBS_DOCTOR_OFFERS_H
#define FAULTLINE_TOOLS_VERBS_DOCTOR_OFFERS_H

#include "tools/verbs/offers.h"

// Those of the store; a directory that is none has none, as the doctor needs no store. Waits for one
// that hangs for some seconds only.
void doctor_find_offers(const char *store, struct offers *ret_offers);
void doctor_print_offers(const char *store, const struct offers *offers);
// A list, as docs/json.md says.
json_t *doctor_offers_json(const char *store, const struct offers *offers);

#endif
