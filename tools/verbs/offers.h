// SPDX-License-Identifier: Apache-2.0
//
// Images on offer (docs/store-format.md), as verbs show them that look at a store. Main thread.
#ifndef FAULTLINE_TOOLS_VERBS_OFFERS_H
#define FAULTLINE_TOOLS_VERBS_OFFERS_H

#include <jansson.h>

#include "snapshot/store.h"

struct offers {
    struct fl_offer_info *all;
    size_t count;
    bool silent; // they are not known, as the store did not answer (doctor_offers.h)
};

// Those of a store. Returns EXIT_DONE, or says why not: EXIT_FAILED, and there are none.
int offers_find(const char *verb, struct fl_store *store, struct offers *ret_offers);
void offers_free(struct offers *offers);

// What can be said of one: "37 % are packed", or that it never will be finished.
enum { OFFER_TEXT = 160 };
const char *offer_explain(const struct fl_offer_info *offer, char text[OFFER_TEXT]);
// As docs/json.md says; the caller owns it. NULL without memory.
json_t *offers_json(const struct offers *offers);

#endif
