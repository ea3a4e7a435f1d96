// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/rescue.h"

#include <stdio.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"

static int refuse_holders(const struct fl_orphan *orphan)
{
    const struct fl_orphan_holder *holder = &orphan->holder[0];
    const char *advice =
        "if that process does not serve it any more, end the process, or use --force";
    if (holder->pid == 1)
        advice = "systemd keeps it for a service: start the service, and the VM goes on";
    else if (strcmp(holder->name, "faultline") == 0)
        advice = "a Faultline that runs takes care of its VMs itself: see its log; if it hangs, "
                 "end it, or use --force";
    return cli_fail("rescue",
                    "%s (pid %d) is no orphan: %s (pid %d, descriptor %d)%s holds its userfaultfd, "
                    "too, and may serve it; %s",
                    orphan->name, (int)orphan->pid, holder->name, (int)holder->pid, holder->fd,
                    orphan->holders > 1 ? " and others" : "", advice);
}

static int refuse_unknowable(const struct fl_orphan *orphan)
{
    char kept[128] = "no state of it was kept";
    if (orphan->state_unreadable)
        snprintf(kept, sizeof(kept),
                 "the state that %s (pid %d) has kept is of another version of faultline",
                 orphan->state_holder.name, (int)orphan->state_holder.pid);
    return cli_fail("rescue",
                    "%s (pid %d) told its handler which pages its guest gave back, and %s: such a "
                    "page must be zeros now but looks like one that was never filled, and the "
                    "image's old bytes would corrupt the guest; use --nothing-removed if the guest "
                    "has given nothing back since it was restored, else --poison or --kill",
                    orphan->name, (int)orphan->pid, kept);
}

static int refuse_ranges(const struct fl_orphan *orphan)
{
    return cli_fail("rescue",
                    "no memory of %s (pid %d) is registered with its descriptor %d, so none of its "
                    "tasks waits there; if the memory of another process is, --poison answers the "
                    "faults of that process",
                    orphan->name, (int)orphan->pid, orphan->fd);
}

// Takes the image and the regions from the state that was kept. Only root can have made the state,
// while the handler lived.
static int check_kept(struct rescue *rescue, const struct fl_orphan *orphan)
{
    const char *kept = orphan->state->image;
    if (rescue->regions)
        return cli_fail("rescue",
                        "--regions cannot be used: %s (pid %d) has kept the regions of %s (pid "
                        "%d)",
                        orphan->state_holder.name, (int)orphan->state_holder.pid, orphan->name,
                        (int)orphan->pid);
    if (!rescue->image)
        rescue->image = kept;
    if (*rescue->image == '\0')
        return cli_fail("rescue",
                        "it is not known which image %s (pid %d) was restored from: name it with "
                        "--image",
                        orphan->name, (int)orphan->pid);
    if (*kept != '\0' && strcmp(kept, rescue->image) != 0 && !rescue->force)
        return cli_fail("rescue",
                        "%s (pid %d) was restored from the image %s, says the state that %s (pid "
                        "%d) has kept; --force takes %s all the same",
                        orphan->name, (int)orphan->pid, kept, orphan->state_holder.name,
                        (int)orphan->state_holder.pid, rescue->image);
    return EXIT_DONE;
}

static bool has_one_page_size(const struct fl_orphan *orphan)
{
    for (size_t i = 1; i < orphan->ranges; i++) {
        if (orphan->range[i].page_bytes != orphan->range[0].page_bytes)
            return false;
    }
    return fl_page_shift(orphan->range[0].page_bytes) != 0;
}

static int check_serve(struct rescue *rescue, struct fl_orphan *orphan)
{
    struct fl_error reason;
    if (orphan->state)
        return check_kept(rescue, orphan);
    if (!has_one_page_size(orphan))
        return cli_fail("rescue",
                        "the memory of %s (pid %d) has pages that are neither 4 KiB nor 2 MiB, or "
                        "pages of two sizes: use --poison or --kill",
                        orphan->name, (int)orphan->pid);
    if (rescue->regions && fl_orphan_set_regions(orphan, rescue->regions, &reason) != 0) {
        cli_fail("rescue", "%s", reason.text);
        rescue_say_ranges(stderr, orphan);
        return EXIT_FAILED;
    }
    if (fl_orphan_unknowable(orphan) && !rescue->nothing_removed)
        return refuse_unknowable(orphan);
    return rescue_compare(rescue, orphan);
}

int rescue_check(struct rescue *rescue, struct fl_orphan *orphan)
{
    if (orphan->holders > 0 && !rescue->force)
        return refuse_holders(orphan);
    if (orphan->ranges == 0 && rescue->action != RESCUE_POISON)
        return refuse_ranges(orphan);
    return rescue->action == RESCUE_SERVE ? check_serve(rescue, orphan) : EXIT_DONE;
}
