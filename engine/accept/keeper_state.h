// SPDX-License-Identifier: Apache-2.0
//
// Whether the keeper runs. One that was stopped, by SIGSTOP or a debugger, answers nothing: a
// thread that waited for its answer would stop with it. VMs that there are need no answer, and go
// on. Control thread.
#ifndef FAULTLINE_ACCEPT_KEEPER_STATE_H
#define FAULTLINE_ACCEPT_KEEPER_STATE_H

#include <stdbool.h>
#include <stddef.h>

struct fl_engine;

// Right now. False if there is none, or if /proc does not show it.
bool fl_keeper_is_stopped(const struct fl_engine *engine);
// What is wrong, and what to do, as a sentence.
void fl_keeper_stopped_reason(const struct fl_engine *engine, char *text, size_t size);

#endif
