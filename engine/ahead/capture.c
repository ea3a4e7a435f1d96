// SPDX-License-Identifier: Apache-2.0
#include "engine/ahead/capture.h"

#include <errno.h>

#include "engine/vm/vm.h"

void fl_capture_init(struct fl_vm *vm)
{
    vm->capture = NULL;
}

void fl_capture_begin(struct fl_shard *shard, struct fl_vm *vm, struct fl_capture *capture)
{
    (void)shard;
    (void)vm;
    capture->tell(capture->arg, FL_CAPTURE_FAILED, -ENOSYS, "this engine takes no captures");
}

void fl_capture_freeze(struct fl_shard *shard, struct fl_vm *vm, struct fl_capture *capture)
{
    (void)shard;
    (void)vm;
    (void)capture;
}

void fl_capture_commit(struct fl_shard *shard, struct fl_vm *vm, struct fl_capture *capture,
                       const char *image)
{
    (void)shard;
    (void)vm;
    (void)capture;
    (void)image;
}

void fl_capture_cancel(struct fl_shard *shard, struct fl_vm *vm, struct fl_capture *capture,
                       int error, const char *reason)
{
    (void)shard;
    (void)vm;
    (void)capture;
    (void)error;
    (void)reason;
}
