// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/huge_order.h"

#include <inttypes.h>

#include "engine/accept/replay_order.h"
#include "engine/ahead/collapser.h"
#include "engine/base/log.h"
#include "engine/vm/vm.h"
#include "engine/worker/engine.h"

static void set_wish(struct fl_vm *vm, bool wanted)
{
    if (wanted)
        atomic_fetch_or(&vm->state->flags, FL_VM_STATE_HUGE);
    else
        atomic_fetch_and(&vm->state->flags, ~(uint64_t)FL_VM_STATE_HUGE);
}

// The VM's memory limit must be known first, and nothing else may be done for the VM that has it
// looked for.
static void ask_for_limit(struct fl_engine *engine)
{
    fl_sleeper_notice(&engine->limit_watcher);
}

void fl_huge_choose(struct fl_engine *engine, struct fl_vm *vm, enum fl_huge huge, bool anonymous)
{
    if (anonymous)
        vm->state->flags |= FL_VM_STATE_ANONYMOUS;
    if (huge == FL_HUGE_DEFAULT)
        huge = engine->options.huge;
    set_wish(vm, huge == FL_HUGE_AFTER_REPLAY && !fl_huge_why_not(engine, vm));
    fl_huge_expect(engine, vm);
}

void fl_huge_expect(struct fl_engine *engine, struct fl_vm *vm)
{
    bool wanted = (vm->state->flags & FL_VM_STATE_HUGE) && engine->images && vm->image &&
                  !(vm->state->flags & FL_VM_STATE_RELEASED) && engine->collapser &&
                  fl_collapser_need(engine->collapser) == 0;
    vm->collapse.state = wanted ? FL_COLLAPSE_WAITING : FL_COLLAPSE_OFF;
    if (wanted)
        ask_for_limit(engine);
}

const char *fl_huge_why_not(const struct fl_engine *engine, const struct fl_vm *vm)
{
    uint64_t flags = vm->state->flags;
    if (vm->page_shift != FL_PAGE_SHIFT)
        return "its memory is in pages of 2 MiB already";
    if (flags & FL_VM_STATE_TEMPLATE)
        return "it maps a template";
    if (!(flags & FL_VM_STATE_ANONYMOUS) || vm->pidfd < 0)
        return "its memory is shared or of a file, or its process is not known";
    if (!vm->image || !engine->images || (flags & FL_VM_STATE_RELEASED))
        return "it is not served from an image of a store";
    if (fl_vm_is_recorded(vm))
        return "it is being recorded";
    if (engine->options.populate || !engine->options.replay)
        return "this server does not replay traces";
    return NULL;
}

int fl_huge_order(struct fl_engine *engine, struct fl_vm *vm, enum fl_huge huge)
{
    int error = huge == FL_HUGE_AFTER_REPLAY ? fl_collapser_need(engine->collapser) : 0;
    if (error)
        return error;
    set_wish(vm, huge == FL_HUGE_AFTER_REPLAY);
    fl_log(FL_LOG_INFO, "event=huge vm=%" PRIu64 " image=%s huge=%s", vm->id, fl_vm_image_name(vm),
           fl_huge_name(huge));
    ask_for_limit(engine);
    if (vm->owner)
        return fl_collapse_order(engine, vm);
    fl_huge_expect(engine, vm); // nobody serves it yet
    return 0;
}
