// SPDX-License-Identifier: Apache-2.0
#include "engine/vm.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/log.h"

bool fl_vm_kill(struct fl_vm *vm, const char *reason)
{
    char text[160];
    if (vm->killed)
        return true;
    bool killed =
        vm->pidfd >= 0 && syscall(SYS_pidfd_send_signal, vm->pidfd, SIGKILL, NULL, 0) == 0;
    vm->killed = killed || (vm->pidfd >= 0 && errno == ESRCH);
    fl_log(FL_LOG_ERROR, "event=%s vm=%" PRIu64 " image=%s pid=%" PRId64 " reason=\"%s\"",
           killed ? "kill" : "kill_failed", vm->id, fl_vm_image_name(vm), vm->state->pid,
           fl_log_text(reason, text, sizeof(text)));
    return vm->killed;
}
