// SPDX-License-Identifier: Apache-2.0
//
// A process that outlives the command: it waits for the command's end, however that comes, and does
// what must not be left undone. It is in a session of its own, so that a kill of the command's
// process group is none of it, and keeps nothing of the command's open but what it is told to. It
// is started while the command has one thread.
#ifndef FAULTLINE_TOOLS_VERBS_LEFT_BEHIND_H
#define FAULTLINE_TOOLS_VERBS_LEFT_BEHIND_H

#include <sys/types.h>

struct left_behind_work {
    // In that process, when the command has ended or has left it the work: then it ends. `arg` is
    // as it was at the start, unless it is shared memory. kept: its own descriptor of `keep`.
    void (*stand_in)(const void *arg, int kept);
    const void *arg;
    int keep; // -1: none
};

struct left_behind {
    pid_t pid; // 0: none
    int line;  // it sees its end
};

// 0 or -errno. When it returns, the process is there and no kill of the command's group reaches it.
int left_behind_start(const struct left_behind_work *work, struct left_behind *ret_process);
// Nothing is left to be done: it ends, and is waited for. For one that was never started, a no-op.
void left_behind_dismiss(struct left_behind *process);
// It does its work now, and is not waited for. For one that was never started, a no-op.
void left_behind_leave(struct left_behind *process);

#endif
