// SPDX-License-Identifier: Apache-2.0
//
// Letting all VMs go at the engine's end. Control thread.
#ifndef FAULTLINE_WORKER_RELEASE_H
#define FAULTLINE_WORKER_RELEASE_H

struct fl_engine;

// Has every worker fill its VMs and let them go. Refused ones are killed.
void fl_release_all(struct fl_engine *engine);
void fl_kill_all(struct fl_engine *engine, const char *reason);

#endif
