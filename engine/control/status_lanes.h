// SPDX-License-Identifier: Apache-2.0
//
// What the status says of lanes (lane.h) and memory limits (limit_watch.h). Control thread.
#ifndef FAULTLINE_CONTROL_STATUS_LANES_H
#define FAULTLINE_CONTROL_STATUS_LANES_H

#include <stdint.h>

struct fl_engine;
struct fl_vm;

struct fl_lanes_now {
    unsigned lanes;   // threads that there are for it
    unsigned vms;     // VMs that have one
    unsigned blocked; // of them, those that the kernel makes wait at this moment
    uint64_t taken;   // times that a worker was taken its other VMs
    uint64_t refused; // times that there was no lane
};
struct fl_lanes_now fl_lanes_now(const struct fl_engine *engine);

// jansson's json_t, which this header does not want to include.
struct json_t;
// null for a VM that has none.
struct json_t *fl_lane_json(const struct fl_vm *vm);
struct json_t *fl_limit_json(const struct fl_vm *vm);

#endif
