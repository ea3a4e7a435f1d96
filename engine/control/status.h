// SPDX-License-Identifier: Apache-2.0
//
// The engine's state in the two forms that are asked for. Control thread. Both return malloc'd
// text, NULL without memory.
#ifndef FAULTLINE_CONTROL_STATUS_H
#define FAULTLINE_CONTROL_STATUS_H

#include <stdbool.h>

struct fl_engine;

char *fl_status_json(struct fl_engine *engine, bool draining);
char *fl_status_prometheus(struct fl_engine *engine, bool draining);

#endif
