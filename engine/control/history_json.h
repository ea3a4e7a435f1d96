// SPDX-License-Identifier: Apache-2.0
//
// A history as JSON: what docs/report.md calls a record, in three parts, so that none of them is
// long in the making. Control thread.
#ifndef FAULTLINE_CONTROL_HISTORY_JSON_H
#define FAULTLINE_CONTROL_HISTORY_JSON_H

#include <jansson.h>
#include <stdint.h>

struct fl_vm_history;

enum { FL_HISTORY_RECORD = 1 }; // its version

// One line of the list of all histories.
json_t *fl_history_json_line(const struct fl_vm_history *history);
// All but the log and the map.
json_t *fl_history_json_head(const struct fl_vm_history *history);
// Faults of the log from number `from` on, some thousands at most.
json_t *fl_history_json_log(const struct fl_vm_history *history, uint64_t from);
// What brought each page, from page `from` on, some hundred thousand at most: a letter, and behind
// it how many pages it stands for, if these are more than one. Comes from malloc; NULL without
// memory.
char *fl_history_json_map(const struct fl_vm_history *history, uint64_t from);

#endif
