// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/warm_order.h"

#include <errno.h>
#include <stdlib.h>

// A request costs as much as the copy of a few pages, which a fault there would bring too.
enum { BRIDGED = 4 };

int warm_order_of_trace(const struct fl_trace *trace, uint64_t most, struct warm_order *ret_order)
{
    const struct fl_trace_entry *entry = fl_trace_entries(trace);
    uint64_t count = fl_trace_count(trace);
    struct warm_order order = {.part = calloc(count, sizeof(*order.part))};
    if (!order.part)
        return -ENOMEM;
    for (uint64_t i = 0; i < count && order.pages < most; i++) {
        struct warm_part *last = order.parts > 0 ? &order.part[order.parts - 1] : NULL;
        uint64_t page = entry[i].page;
        uint64_t added = last && page >= last->first + last->pages
                             ? page + 1 - (last->first + last->pages)
                             : WARM_PART_PAGES;
        if (last && added <= 1 + BRIDGED && last->pages + added <= WARM_PART_PAGES) {
            last->pages += (uint32_t)added;
            order.pages += added;
        } else {
            order.part[order.parts++] = (struct warm_part){page, 1};
            order.pages++;
        }
    }
    *ret_order = order;
    return 0;
}

int warm_order_of_all(uint64_t pages, uint64_t most, struct warm_order *ret_order)
{
    uint64_t left = pages < most ? pages : most;
    struct warm_order order = {.part = calloc(left / WARM_PART_PAGES + 1, sizeof(*order.part))};
    if (!order.part)
        return -ENOMEM;
    for (; left > 0; order.parts++) {
        uint32_t part = left < WARM_PART_PAGES ? (uint32_t)left : WARM_PART_PAGES;
        order.part[order.parts] = (struct warm_part){order.pages, part};
        order.pages += part;
        left -= part;
    }
    *ret_order = order;
    return 0;
}

void warm_order_free(struct warm_order *order)
{
    free(order->part);
    *order = (struct warm_order){0};
}
