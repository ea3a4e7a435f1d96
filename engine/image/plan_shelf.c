// SPDX-License-Identifier: Apache-2.0
#include "engine/image/plan_shelf.h"

#include <stdlib.h>

struct shelved {
    struct cds_list_head link;
    struct stat image;
    struct stat trace;
    struct fl_plan *plan;
};

void fl_plan_shelf_init(struct fl_plan_shelf *shelf)
{
    CDS_INIT_LIST_HEAD(&shelf->plans);
    shelf->bytes = 0;
}

static struct fl_plan *remove_one(struct fl_plan_shelf *shelf, struct shelved *shelved)
{
    struct fl_plan *plan = shelved->plan;
    cds_list_del(&shelved->link);
    shelf->bytes -= fl_plan_bytes(plan);
    free(shelved);
    return plan;
}

static void shrink(struct fl_plan_shelf *shelf, uint64_t bytes)
{
    while (shelf->bytes > bytes)
        fl_plan_unref(remove_one(shelf, cds_list_entry(shelf->plans.prev, struct shelved, link)));
}

void fl_plan_shelf_fini(struct fl_plan_shelf *shelf)
{
    shrink(shelf, 0);
}

void fl_plan_shelf_put(struct fl_plan_shelf *shelf, const struct stat *image,
                       const struct stat *trace, struct fl_plan *plan)
{
    struct shelved *shelved = malloc(sizeof(*shelved));
    if (!shelved) {
        fl_plan_unref(plan);
        return;
    }
    *shelved = (struct shelved){.image = *image, .trace = *trace, .plan = plan};
    cds_list_add(&shelved->link, &shelf->plans);
    shelf->bytes += fl_plan_bytes(plan);
    shrink(shelf, FL_PLAN_SHELF_BYTES);
}

struct fl_plan *fl_plan_shelf_take(struct fl_plan_shelf *shelf, const struct stat *image,
                                   const struct stat *trace)
{
    struct shelved *shelved;
    cds_list_for_each_entry(shelved, &shelf->plans, link)
    {
        if (fl_same_file(&shelved->image, image) && fl_same_file(&shelved->trace, trace))
            return remove_one(shelf, shelved);
    }
    return NULL;
}
