// SPDX-License-Identifier: Apache-2.0
//
// Letting VMs go at the engine's end. One that is let go is filled with all that does not read as
// zeros anyway (fill.h), which is looked at (complete.h), then unregistered; it goes on without us.
#ifndef FAULTLINE_WORKER_RELEASE_H
#define FAULTLINE_WORKER_RELEASE_H

struct fl_engine;
struct fl_shard;
struct fl_vm;

// Control thread. Has every worker fill its VMs and let them go. Refused ones are killed.
void fl_release_all(struct fl_engine *engine);
// Control thread.
void fl_kill_all(struct fl_engine *engine, const char *reason);

// Owner only: a slice of the work on a VM in release that has all it must have.
void fl_release_slice(struct fl_shard *shard, struct fl_vm *vm);
// Owner only: a predecessor has unregistered the VM already. Lets it go.
void fl_release_go_on(struct fl_shard *shard, struct fl_vm *vm);

#endif
