// SPDX-License-Identifier: Apache-2.0
//
// What a server lacks that serves all the same: its VMs do not suffer from it. Each kind of lack
// has one reason at a time; each change is a line of the log, and is told to the keeper, which
// tells the service manager. Control thread only.
#ifndef FAULTLINE_LINK_DEGRADED_H
#define FAULTLINE_LINK_DEGRADED_H

#include <stdbool.h>
#include <stdio.h>

#include <jansson.h>

struct fl_keeper_link;

enum fl_lack {
    FL_LACK_STORE,          // no new VM can have its image
    FL_LACK_SOCKETS,        // images cannot be reached
    FL_LACK_CONTROL,        // nor the control API
    FL_LACK_KEEPER,         // a new keeper would not find this engine
    FL_LACK_INOTIFY,        // the store is looked at once a second instead
    FL_LACK_DESCRIPTORS,    // new VMs are refused, or images have no sockets
    FL_LACK_FILTER,         // system calls are not filtered
    FL_LACK_COUNTERS,       // what was counted does not outlive the engine
    FL_LACK_IMAGES,         // packs of images: these have no sockets
    FL_LACK_OBSERVE,        // observers cannot reach the control API
    FL_LACK_METRICS,        // nor the metrics
    FL_LACK_RUNNING_KEEPER, // it is stopped
    FL_LACK_HUGE,           // working sets stay pages of 4 KiB
    FL_LACK_FILES,          // images cannot be opened as files
    FL_LACKS,
};

enum { FL_LACK_REASON = 256 };

// Zeroed at first. The link is set once there is one; until then the keeper is not told.
struct fl_degraded {
    struct fl_keeper_link *keeper_link;
    char reason[FL_LACKS][FL_LACK_REASON]; // "": it does not lack this
};

// As the status and the metrics name it.
const char *fl_lack_name(enum fl_lack lack);

// Notes that it lacks this, and says so unless the reason was said in the same words before.
void fl_lacks(struct fl_degraded *degraded, enum fl_lack lack, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// Notes that it has this, and says so if it lacked it before.
void fl_has(struct fl_degraded *degraded, enum fl_lack lack);
// Tells the keeper all of it, "" if there is nothing.
void fl_degraded_tell(const struct fl_degraded *degraded);

// For the status: [{"what": NAME, "reason": TEXT}...], the keeper's own troubles among them; the
// values of a metric, one of each kind.
json_t *fl_degraded_json(const struct fl_degraded *degraded);
void fl_degraded_metrics(const struct fl_degraded *degraded, FILE *out);

#endif
