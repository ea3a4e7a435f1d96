// SPDX-License-Identifier: Apache-2.0
#include "tools/rescue.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "snapshot/read.h"
#include "tools/cli.h"
#include "tools/verb.h"

enum { REASON = 1024 };

static int refuse_holders(const struct fl_orphan *orphan)
{
    const struct fl_orphan_holder *holder = &orphan->holder[0];
    const char *advice = "if it serves no more, end it, or say --force";
    if (holder->pid == 1)
        advice = "it keeps it for a service: start that, and it goes on by itself";
    else if (strcmp(holder->name, "faultline") == 0)
        advice = "a Faultline that runs takes care of its VMs itself: see its log; if it hangs, "
                 "end it, or say --force";
    return cli_fail("rescue",
                    "%s (pid %d) is no orphan: %s (pid %d, descriptor %d)%s holds its userfaultfd, "
                    "too, and may serve it; %s",
                    orphan->name, (int)orphan->pid, holder->name, (int)holder->pid, holder->fd,
                    orphan->holders > 1 ? " and others" : "", advice);
}

static int refuse_unknowable(const struct fl_orphan *orphan)
{
    char kept[128] = "nothing was kept of it";
    if (orphan->state_unreadable)
        snprintf(kept, sizeof(kept),
                 "what %s (pid %d) has kept of it is of another version of faultline",
                 orphan->state_holder.name, (int)orphan->state_holder.pid);
    return cli_fail("rescue",
                    "%s (pid %d) told its handler which pages its guest gave back, and %s: such a "
                    "page must be zeros now but looks like one that was never filled, and the "
                    "image's old bytes would corrupt the guest; say --nothing-removed if the guest "
                    "has given nothing back since it was restored, else --poison or --kill",
                    orphan->name, (int)orphan->pid, kept);
}

static int refuse_layout(const struct fl_orphan *orphan)
{
    if (orphan->ranges == 1)
        return cli_fail("rescue",
                        "the memory of %s (pid %d) may be more than one region of the image (it is "
                        "larger than 3 GiB, or its pages are neither 4 KiB nor 2 MiB): say which "
                        "with --regions, or --poison or --kill",
                        orphan->name, (int)orphan->pid);
    return cli_fail(
        "rescue",
        "the memory of %s (pid %d) is in %zu pieces, and nothing was kept of which part "
        "of the image each is: say it with --regions, or --poison or --kill",
        orphan->name, (int)orphan->pid, orphan->ranges);
}

static int refuse_ranges(const struct fl_orphan *orphan)
{
    return cli_fail("rescue",
                    "no memory of %s (pid %d) is registered with its descriptor %d: nobody of it "
                    "waits there; if it is the memory of another process, --poison answers its "
                    "faults all the same",
                    orphan->name, (int)orphan->pid, orphan->fd);
}

// The image's name is settled: what was asked for, or what was kept.
static int settle_image(struct rescue *rescue, const struct fl_orphan *orphan)
{
    const char *kept = orphan->state ? orphan->state->image : "";
    if (!rescue->image)
        rescue->image = kept;
    if (*rescue->image == '\0')
        return cli_fail("rescue", "which image was %s (pid %d) restored from? Say it with --image",
                        orphan->name, (int)orphan->pid);
    if (*kept != '\0' && strcmp(kept, rescue->image) != 0 && !rescue->force)
        return cli_fail("rescue",
                        "%s (pid %d) was restored from the image %s, as %s (pid %d) has kept it; "
                        "--force takes %s all the same",
                        orphan->name, (int)orphan->pid, kept, orphan->state_holder.name,
                        (int)orphan->state_holder.pid, rescue->image);
    return EXIT_DONE;
}

// An orphan without a kept state is taken at its word, or at the operator's: but what it has of its
// memory must look like the image.
static int check_evidence(struct rescue *rescue, const struct fl_orphan *orphan)
{
    struct fl_reader *reader = NULL;
    struct fl_image *image = NULL;
    int error = fl_reader_open(rescue->store, &reader);
    if (error == -ENOENT)
        return cli_fail("rescue",
                        "the memory of %s (pid %d) cannot be compared with image %s: " FL_NO_STORE
                        " (or say --force)",
                        orphan->name, (int)orphan->pid, rescue->image, rescue->store);
    if (!error)
        error = fl_image_open(reader, rescue->image, &image);
    if (!error)
        error = fl_evidence(orphan->pid, &orphan->layout, image, &rescue->evidence);
    fl_image_unref(image);
    fl_reader_close(reader);
    if (error)
        return cli_fail_errno("rescue", error,
                              "the memory of %s (pid %d) cannot be compared with image %s of the "
                              "store %s (see --store, or say --force)",
                              orphan->name, (int)orphan->pid, rescue->image, rescue->store);
    if (!fl_evidence_supports(&rescue->evidence))
        return cli_fail("rescue",
                        "of %" PRIu64 " pages that %s (pid %d) has, %" PRIu64
                        " are as in image %s: it was restored from another, or its memory is more "
                        "than one region of it (say which with --regions)",
                        rescue->evidence.compared, orphan->name, (int)orphan->pid,
                        rescue->evidence.same, rescue->image);
    return EXIT_DONE;
}

static int check_serve(struct rescue *rescue, struct fl_orphan *orphan)
{
    char reason[REASON];
    if (rescue->regions &&
        fl_orphan_set_regions(orphan, rescue->regions, reason, sizeof(reason)) != 0)
        return cli_fail("rescue", "%s", reason);
    if (fl_orphan_unknowable(orphan) && !rescue->nothing_removed)
        return refuse_unknowable(orphan);
    if (orphan->layout.regions == 0)
        return refuse_layout(orphan);
    int status = settle_image(rescue, orphan);
    if (status != EXIT_DONE || orphan->state || rescue->force)
        return status;
    return check_evidence(rescue, orphan);
}

int rescue_check(struct rescue *rescue, struct fl_orphan *orphan)
{
    if (orphan->holders > 0 && !rescue->force)
        return refuse_holders(orphan);
    if (orphan->ranges == 0 && rescue->action != RESCUE_POISON)
        return refuse_ranges(orphan);
    return rescue->action == RESCUE_SERVE ? check_serve(rescue, orphan) : EXIT_DONE;
}
