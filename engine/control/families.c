// SPDX-License-Identifier: Apache-2.0
#include "engine/control/families.h"

#include <stddef.h>

const struct fl_family_row fl_family_rows[FL_FAMILIES] = {
    [FL_FAMILY_BUILD] = {"build_info", "gauge", "version", "version",
                         "1, with what runs as labels."},
    [FL_FAMILY_DEGRADED] = {"degraded", "gauge", "what", "degraded",
                            "1 if the server lacks this, and serves all the same."},
    [FL_FAMILY_FAULT_DURATION] =
        {"fault_duration_seconds", "histogram", "stage", "latency_us",
         "Time from the reading of a fault until its page is there, by what it had to wait for."},
    [FL_FAMILY_ATTACH_DURATION] =
        {"attach_duration_seconds", "histogram", NULL, NULL,
         "Time from the accepting of a connection until its VM is attached."},
    [FL_FAMILY_TAKEOVER_DURATION] =
        {"takeover_duration_seconds", "histogram", NULL, NULL,
         "For how long no engine served, each time that one took over from another."},
    [FL_FAMILY_CAPTURES_FAILED] = {"captures_failed_total", "counter", "blame", NULL,
                                   "Captures that failed or were refused, by whose doing."},
    [FL_FAMILY_CAPTURE_FREEZE] =
        {"capture_freeze_duration_seconds", "histogram", NULL, NULL,
         "Time from the order to freeze a VM's memory until it may go on, of each capture."},
    [FL_FAMILY_IMAGE_VMS] = {"image_vms", "gauge", "image", NULL,
                             "VMs of the image that are attached now."},
    [FL_FAMILY_IMAGE_ATTACHED] = {"image_vms_attached_total", "counter", "image", NULL,
                                  "VMs of the image that attached."},
    [FL_FAMILY_IMAGE_REFUSED] = {"image_handshakes_refused_total", "counter", "image", NULL,
                                 "Handshakes for the image that were refused."},
    [FL_FAMILY_IMAGE_FAULTS] = {"image_faults_total", "counter", "image", NULL,
                                "Fault messages read of VMs of the image."},
    [FL_FAMILY_IMAGE_LATE] = {"image_replay_late_pages_total", "counter", "image", NULL,
                              "Pages of 4 KiB of the image's trace that were touched before replay "
                              "came to them."},
    [FL_FAMILY_IMAGE_POISONED] = {"image_poisoned_pages_total", "counter", "image", NULL,
                                  "Pages of 4 KiB of VMs of the image that were poisoned."},
};
