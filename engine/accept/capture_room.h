// SPDX-License-Identifier: Apache-2.0
//
// How much memory a capture may have for pages that are copied and not packed yet. The more it is,
// the sooner all is copied, and the guest waits for it no more; packing takes its time. What one
// capture may have is not promised to another one, as memory that runs out here would be missed by
// the engine itself: the buffers are charged to its cgroup.
#ifndef FAULTLINE_ACCEPT_CAPTURE_ROOM_H
#define FAULTLINE_ACCEPT_CAPTURE_ROOM_H

#include <stdint.h>

struct cds_list_head;
struct fl_engine_options;

// Control thread. Bytes, for one that begins beside the sessions of the list.
uint64_t fl_capture_room(const struct fl_engine_options *options,
                         const struct cds_list_head *sessions);

#endif
