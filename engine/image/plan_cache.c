// SPDX-License-Identifier: Apache-2.0
#include "engine/image/plan_cache.h"

#include <stdlib.h>

struct shelved {
    struct cds_list_head link;
    struct stat image;
    struct stat trace;
    struct fl_plan *plan;
};

void fl_plan_cache_init(struct fl_plan_cache *plans)
{
    CDS_INIT_LIST_HEAD(&plans->plans);
    plans->bytes = 0;
}

static struct fl_plan *remove_plan(struct fl_plan_cache *plans, struct shelved *shelved)
{
    struct fl_plan *plan = shelved->plan;
    cds_list_del(&shelved->link);
    plans->bytes -= fl_plan_bytes(plan);
    free(shelved);
    return plan;
}

static void shrink_cache(struct fl_plan_cache *plans, uint64_t bytes)
{
    while (plans->bytes > bytes)
        fl_plan_unref(remove_plan(plans, cds_list_entry(plans->plans.prev, struct shelved, link)));
}

void fl_plan_cache_fini(struct fl_plan_cache *plans)
{
    shrink_cache(plans, 0);
}

void fl_plan_cache_put(struct fl_plan_cache *plans, const struct stat *image,
                       const struct stat *trace, struct fl_plan *plan)
{
    struct shelved *shelved = malloc(sizeof(*shelved));
    if (!shelved) {
        fl_plan_unref(plan);
        return;
    }
    *shelved = (struct shelved){.image = *image, .trace = *trace, .plan = plan};
    cds_list_add(&shelved->link, &plans->plans);
    plans->bytes += fl_plan_bytes(plan);
    shrink_cache(plans, FL_PLAN_CACHE_BYTES);
}

struct fl_plan *fl_plan_cache_take(struct fl_plan_cache *plans, const struct stat *image,
                                   const struct stat *trace)
{
    struct shelved *shelved;
    cds_list_for_each_entry(shelved, &plans->plans, link)
    {
        if (fl_same_file(&shelved->image, image) && fl_same_file(&shelved->trace, trace))
            return remove_plan(plans, shelved);
    }
    return NULL;
}
