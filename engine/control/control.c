// SPDX-License-Identifier: Apache-2.0
#include "engine/control/control.h"

#include <stdlib.h>

#include "engine/accept/acceptor.h"
#include "engine/base/clock.h"
#include "engine/control/checkpoints.h"
#include "engine/control/door.h"

struct fl_control {
    struct fl_health health;
    struct fl_checkpoints *checkpoints;
    struct fl_door door[FL_DOORS];
};

struct fl_control *fl_control_new(struct fl_acceptor *acceptor,
                                  const struct fl_control_options *options,
                                  const struct fl_control_ops *ops)
{
    struct fl_control *control = calloc(1, sizeof(*control));
    struct fl_checkpoints *checkpoints = control ? fl_checkpoints_new(acceptor) : NULL;
    if (!checkpoints) {
        free(control);
        return NULL;
    }
    control->checkpoints = checkpoints;
    control->health = (struct fl_health){
        .acceptor = acceptor, .silence_ns = options->hang_ms * FL_NS_PER_MS / 2, .ops = *ops};
    for (int kind = 0; kind < FL_DOORS; kind++)
        fl_door_init(&control->door[kind], acceptor, &control->health, checkpoints,
                     (enum fl_door_kind)kind, options);
    return control;
}

int fl_control_look(struct fl_control *control, enum fl_door_kind kind, struct fl_error *ret_error)
{
    return fl_door_look(&control->door[kind], ret_error);
}

bool fl_control_is_on_internet(const struct fl_control *control)
{
    bool is = false;
    for (int kind = 0; control && kind < FL_DOORS; kind++)
        is |= control->door[kind].is_tcp;
    return is;
}

void fl_control_free(struct fl_control *control)
{
    if (!control)
        return;
    for (int kind = 0; kind < FL_DOORS; kind++)
        fl_door_shut(&control->door[kind]);
    fl_checkpoints_free(control->checkpoints);
    free(control);
}

void fl_control_run(struct fl_control *control, uint64_t now)
{
    for (int kind = 0; control && kind < FL_DOORS; kind++)
        fl_door_run(&control->door[kind], now);
}

uint64_t fl_control_next_due(struct fl_control *control)
{
    uint64_t first = FL_NEVER;
    for (int kind = 0; control && kind < FL_DOORS; kind++) {
        uint64_t due = fl_door_next_due(&control->door[kind]);
        first = due < first ? due : first;
    }
    return first;
}
