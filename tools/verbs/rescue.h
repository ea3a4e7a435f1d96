// SPDX-License-Identifier: Apache-2.0
//
// What `faultline rescue` was asked for, when it refuses (rescue_check.c; rescue_compare.c for what
// the memory has in it), and what it says (rescue_report.c).
#ifndef FAULTLINE_TOOLS_VERBS_RESCUE_H
#define FAULTLINE_TOOLS_VERBS_RESCUE_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "engine/host/answer_without_image.h"
#include "engine/rescue/image_match.h"
#include "engine/rescue/orphan.h"

enum rescue_action { RESCUE_SERVE, RESCUE_POISON, RESCUE_KILL };

struct rescue {
    pid_t pid;
    int fd;              // -1: the one that it has
    const char *control; // the server's socket
    const char *image;   // NULL: what was kept
    const char *store;   // where it is
    const char *regions; // NULL: what was kept, or the one there is
    enum rescue_action action;
    bool nothing_removed;
    bool force;
    bool dry_run;
    bool json;
    bool compared; // what the VM has was compared with the image; never if a state was kept
    struct fl_image_match evidence;        // that came of it
    char image_found[FL_IMAGE_NAME_BYTES]; // by its content, as none was named
};

// Whether it can be right; settles the image and the layout. EXIT_FAILED after a sentence.
int rescue_check(struct rescue *rescue, struct fl_orphan *orphan);

// Compares what the VM has of its memory with its image, or with all of the store's if none is
// named; settles the image and the layout. EXIT_FAILED after a sentence, not with --force.
int rescue_compare(struct rescue *rescue, struct fl_orphan *orphan);

// What was compared, and what came of it; and its ranges, in the form of --regions.
void rescue_say_evidence(FILE *to, const struct rescue *rescue, const struct fl_orphan *orphan);
void rescue_say_ranges(FILE *to, const struct fl_orphan *orphan);

// On stdout: what would be done; that a server does it; that it is done with, here.
void rescue_report_plan(const struct rescue *rescue, const struct fl_orphan *orphan);
void rescue_report_served(const struct rescue *rescue, const struct fl_orphan *orphan);
void rescue_report_condemned(const struct rescue *rescue, const struct fl_orphan *orphan,
                             const struct fl_answer_without_imageed *done);
// On stderr: that it is being done here, and until when.
void rescue_say_here(const struct rescue *rescue, const struct fl_orphan *orphan);
// EXIT_FAILED after a sentence: the process is gone or going, so who holds what, and what can be
// done.
int rescue_fail_gone(pid_t pid, const char *reason);

#endif
