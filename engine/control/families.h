// SPDX-License-Identifier: Apache-2.0
//
// The metrics that are no single numbers: histograms, and those with labels. Their values are
// written in status_prometheus.c; docs/metrics.md has them from here.
//
// Constant data: any thread.
#ifndef FAULTLINE_CONTROL_FAMILIES_H
#define FAULTLINE_CONTROL_FAMILIES_H

enum fl_family {
    FL_FAMILY_BUILD,
    FL_FAMILY_DEGRADED,
    FL_FAMILY_FAULT_DURATION,
    FL_FAMILY_ATTACH_DURATION,
    FL_FAMILY_TAKEOVER_DURATION,
    FL_FAMILY_CAPTURES_FAILED,
    FL_FAMILY_CAPTURE_FREEZE,
    FL_FAMILY_IMAGE_VMS,
    FL_FAMILY_IMAGE_ATTACHED,
    FL_FAMILY_IMAGE_REFUSED,
    FL_FAMILY_IMAGE_FAULTS,
    FL_FAMILY_IMAGE_LATE,
    FL_FAMILY_IMAGE_POISONED,
    FL_FAMILIES,
};

struct fl_family_row {
    const char *metric; // behind "faultline_"
    const char *type;   // as Prometheus calls it
    const char *labels; // the names of its labels, joined by commas; NULL: none
    const char *json;   // its key in the status; NULL: it is not there
    const char *help;   // one sentence
};

extern const struct fl_family_row fl_family_rows[FL_FAMILIES];

// The bounds of the buckets of every histogram: 2 to the power of these, in nanoseconds.
enum { FL_BUCKET_FIRST = 10, FL_BUCKET_LAST = 34 };

#endif
