// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/offers.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"

int offers_find(const char *verb, struct fl_store *store, struct offers *ret_offers)
{
    struct fl_error error;
    *ret_offers = (struct offers){.all = NULL};
    if (fl_store_offers(store, &ret_offers->all, &ret_offers->count, &error) < 0)
        return cli_fail(verb, "%s", error.text);
    return EXIT_DONE;
}

void offers_free(struct offers *offers)
{
    free(offers->all);
    *offers = (struct offers){.all = NULL};
}

const char *offer_explain(const struct fl_offer_info *offer, char text[OFFER_TEXT])
{
    if (offer->left)
        snprintf(text, OFFER_TEXT,
                 "left by a process that was killed before it was packed; 'faultline gc' removes "
                 "it");
    else if (offer->pages == 0)
        snprintf(text, OFFER_TEXT, "on offer, by another version of Faultline");
    else
        snprintf(text, OFFER_TEXT, "on offer; %" PRIu64 " %% of its pages are packed",
                 offer->packed_pages * 100 / offer->pages);
    return text;
}

json_t *offers_json(const struct offers *offers)
{
    json_t *list = json_array();
    for (size_t i = 0; i < offers->count; i++) {
        const struct fl_offer_info *offer = &offers->all[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:b, s:I, s:I, s:I}", "name", offer->name, "left",
                                        (int)offer->left, "bytes", (json_int_t)offer->bytes,
                                        "pages", (json_int_t)offer->pages, "packed_pages",
                                        (json_int_t)offer->packed_pages));
    }
    return list;
}
