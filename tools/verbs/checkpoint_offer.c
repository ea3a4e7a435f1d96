// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/checkpoint_offer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "tools/cli/control_client.h"
#include "tools/cli/progress.h"
#include "tools/verbs/checkpoint_steps.h"

// The server sees a new name by itself, if it serves this store: SOON after it is there, or never.
enum { LOOK_MS = 2, LOOK_LESS = 8, SOON_S = 10 };

int offered_make(const char *prefix, unsigned count, struct offered *ret_offered)
{
    struct offered offered = {.count = count ? count : 1};
    offered.names = calloc(offered.count, sizeof(char *));
    offered.told = calloc(offered.count, sizeof(bool));
    bool made = offered.names && offered.told;
    for (unsigned i = 0; made && i < offered.count; i++) {
        if (count == 0)
            made = (offered.names[i] = strdup(prefix)) != NULL;
        else if (asprintf(&offered.names[i], "%s-%u", prefix, i + 1) < 0)
            made = (offered.names[i] = NULL) != NULL;
    }
    if (!made) {
        offered_free(&offered);
        return -ENOMEM;
    }
    *ret_offered = offered;
    return 0;
}

void offered_free(struct offered *offered)
{
    for (size_t i = 0; offered->names && i < offered->count; i++)
        free(offered->names[i]);
    free(offered->names);
    free(offered->told);
    *offered = (struct offered){.names = NULL};
}

bool offered_all_told(const struct offered *offered)
{
    return offered->count == 0 || !memchr(offered->told, false, offered->count);
}

static bool is_listed(const json_t *listeners, const char *image)
{
    size_t i;
    const json_t *listener;
    json_array_foreach(listeners, i, listener)
    {
        const char *of = json_string_value(json_object_get(listener, "image"));
        if (of && strcmp(of, image) == 0 && !json_is_false(json_object_get(listener, "reachable")))
            return true;
    }
    return false;
}

void offered_tell(const struct checkpoint_order *order)
{
    long status;
    json_t *answer = NULL;
    const struct offered *offered = &order->offered;
    if (offered_all_told(offered))
        return;
    control_look(order->control, "/v1/listeners", progress_interrupted, &status, &answer);
    const json_t *listeners = json_object_get(answer, "listeners");
    for (size_t i = 0; i < offered->count; i++) {
        if (offered->told[i] || !is_listed(listeners, offered->names[i]))
            continue;
        offered->told[i] = true;
        checkpoint_say_restorable(order, offered->names[i]);
    }
    json_decref(answer);
}

int offered_turn(struct run *run, int most_ms)
{
    uint64_t now = fl_now();
    if (!run->pack.running || !atomic_load(&run->pack.offered) ||
        offered_all_told(&run->order->offered))
        return most_ms;
    if (run->offered_at == 0)
        run->offered_at = now;
    if (now - run->offered_at > SOON_S * FL_NS_PER_S)
        return most_ms;
    offered_tell(run->order);
    // The longer it takes the less often: the server has others to answer.
    int look_ms = LOOK_MS + (int)((now - run->offered_at) / FL_NS_PER_MS / LOOK_LESS);
    return offered_all_told(&run->order->offered) || look_ms > most_ms ? most_ms : look_ms;
}
