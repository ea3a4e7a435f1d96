// SPDX-License-Identifier: Apache-2.0
#include "engine/accept/keeper_state.h"

#include <stdio.h>

#include "engine/host/procfs.h"
#include "engine/link/keeper_link.h"
#include "engine/worker/engine.h"

bool fl_keeper_is_stopped(const struct fl_engine *engine)
{
    char path[32];
    struct fl_proc_task task;
    int pid = fl_keeper_link_pid(engine->keeper_link);
    if (pid <= 0)
        return false;
    snprintf(path, sizeof(path), "/proc/%d", pid);
    return fl_proc_task(path, &task) == 0 && (task.state == 'T' || task.state == 't');
}

void fl_keeper_stopped_reason(const struct fl_engine *engine, char *text, size_t size)
{
    int pid = fl_keeper_link_pid(engine->keeper_link);
    snprintf(text, size,
             "the keeper (process %d) is stopped: VMs are served, but no new one is taken and no "
             "engine that dies is replaced, until it goes on (kill -CONT %d)",
             pid, pid);
}
