// SPDX-License-Identifier: Apache-2.0
//
// The parts of `faultline rescue`: rescue_check.c and rescue_compare.c decide whether a VM would
// get the right bytes, rescue_report.c prints, cmd_rescue.c acts.
#ifndef FAULTLINE_TOOLS_VERBS_RESCUE_H
#define FAULTLINE_TOOLS_VERBS_RESCUE_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "engine/host/answer_without_image.h"
#include "engine/rescue/image_match.h"
#include "engine/rescue/orphan.h"

enum rescue_action { RESCUE_SERVE, RESCUE_POISON, RESCUE_KILL };

// The order, and what is found out on the way.
struct rescue {
    pid_t pid;
    int fd;              // the userfaultfd of the process; -1: find it
    const char *control; // the server's socket
    const char *image;   // NULL: the image that was kept, or that is found
    const char *store;   // the store with the image
    const char *regions; // JSON; NULL: the regions that were kept, or that are found
    enum rescue_action action;
    bool nothing_removed;
    bool force;
    bool dry_run;
    bool json;
    bool compared; // the VM's pages were compared with the image; never if a state was kept
    struct fl_image_match evidence;        // the result of the comparison
    char image_found[FL_IMAGE_NAME_BYTES]; // the image that was found; `image` points to it
};

// Checks whether the VM would get the right bytes; sets the image and the layout. Returns
// EXIT_DONE, or EXIT_FAILED after a sentence.
int rescue_check(struct rescue *rescue, struct fl_orphan *orphan);

// Compares the pages that the VM has with its image, or with all images of the store if none is
// named; sets the image and the layout. Returns EXIT_DONE, or EXIT_FAILED after a sentence. With
// --force it fails only if no layout can be found.
int rescue_compare(struct rescue *rescue, struct fl_orphan *orphan);

// Print what was compared and the result, and the VM's ranges in the form of --regions.
void rescue_say_evidence(FILE *to, const struct rescue *rescue, const struct fl_orphan *orphan);
void rescue_say_ranges(FILE *to, const struct fl_orphan *orphan);

// Print on stdout: what would be done; that a server has taken over the VM; that this process has
// answered all faults until the VM's memory was gone.
void rescue_report_plan(const struct rescue *rescue, const struct fl_orphan *orphan);
void rescue_report_served(const struct rescue *rescue, const struct fl_orphan *orphan);
void rescue_report_condemned(const struct rescue *rescue, const struct fl_orphan *orphan,
                             const struct fl_answered *done);
// Prints on stderr that this process answers the faults from now on.
void rescue_say_here(const struct rescue *rescue, const struct fl_orphan *orphan);
// Prints the reason, and what can be done about userfaultfds that a dying process may have left
// behind. Returns EXIT_FAILED.
int rescue_fail_gone(pid_t pid, const char *reason);

#endif
