// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/rescue.h"

#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/bitmap.h"
#include "engine/doctor/doctor.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"

static const char *const action_names[] = {"serve", "poison", "kill"};

static uint64_t removed_pages(const struct fl_orphan *orphan)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < orphan->state->layout.pages; i++)
        count += fl_bit_test(fl_vm_removed(orphan->state), i);
    return count;
}

// --- what was compared ---

static const char *const fit_names[] = {
    [FL_FIT_UNKNOWN] = "too little to say", [FL_FIT_YES] = "fits", [FL_FIT_NO] = "does not fit"};
static const char *const layout_names[] = {[FL_LAYOUT_UNKNOWN] = "unknown",
                                           [FL_LAYOUT_KEPT] = "kept",
                                           [FL_LAYOUT_GIVEN] = "given",
                                           [FL_LAYOUT_FOUND] = "found",
                                           [FL_LAYOUT_ASSUMED] = "assumed"};

static uint64_t looked_at(const struct fl_image_match_count *count)
{
    return fl_image_match_speaking(count) + count->silent;
}

static void say_region(FILE *to, const struct rescue *rescue, const struct fl_orphan *orphan,
                       uint32_t i)
{
    char size[32];
    char offset[32];
    const struct fl_region *region = &orphan->layout.region[i];
    const struct fl_image_match_count *count = &rescue->evidence.region[i];
    fprintf(to,
            "  %s of memory at 0x%" PRIx64 " as %s from %s on in it: %s: %" PRIu64 " of %" PRIu64
            " pages that say something are the image's\n",
            cli_format_bytes(region->bytes, size, sizeof(size)), region->base, rescue->image,
            cli_format_bytes(region->offset, offset, sizeof(offset)),
            rescue->evidence.zero[i] ? "by elimination, as the image is zero there"
                                     : fit_names[rescue->evidence.fit[i]],
            count->same, fl_image_match_speaking(count));
}

void rescue_say_evidence(FILE *to, const struct rescue *rescue, const struct fl_orphan *orphan)
{
    const struct fl_image_match_count *all = &rescue->evidence.all;
    if (!rescue->compared || orphan->layout.regions == 0)
        return;
    fprintf(to,
            "%" PRIu64 " pages that it has were compared with image %s: %" PRIu64
            " are the image's, in their place; %" PRIu64 " are in the image at another place; "
            "%" PRIu64 " differ from the image's; %" PRIu64 " are not zero, and the image's are; "
            "%" PRIu64 " say nothing (zero in both, or several times in the image)\n",
            looked_at(all), rescue->image, all->same, all->elsewhere, all->changed, all->written,
            all->silent);
    for (uint32_t i = 0; i < orphan->layout.regions; i++)
        say_region(to, rescue, orphan, i);
}

void rescue_say_ranges(FILE *to, const struct fl_orphan *orphan)
{
    fprintf(to,
            "its memory, for --regions; OFFSET is where each region begins in the memory file, and "
            "a region may have to be cut in two:\n  [");
    for (size_t i = 0; i < orphan->ranges; i++)
        fprintf(to,
                "%s{\"base_host_virt_addr\":%" PRIu64 ",\"size\":%" PRIu64
                ",\"offset\":OFFSET,\"page_size\":%" PRIu64 "}",
                i > 0 ? "," : "", orphan->range[i].start, orphan->range[i].bytes,
                orphan->range[i].page_bytes);
    fprintf(to, "]\n");
}

// --- JSON ---

static json_t *holder_json(const struct fl_orphan_holder *holder)
{
    return json_pack("{s:i, s:i, s:s}", "pid", (int)holder->pid, "fd", holder->fd, "name",
                     holder->name);
}

static json_t *kept_json(const struct fl_orphan *orphan)
{
    if (!orphan->state)
        return json_null();
    return json_pack("{s:o, s:s, s:I}", "holder", holder_json(&orphan->state_holder), "image",
                     orphan->state->image, "removed_pages", (json_int_t)removed_pages(orphan));
}

static json_t *regions_json(const struct fl_orphan *orphan)
{
    json_t *regions = json_array();
    for (uint32_t i = 0; i < orphan->layout.regions; i++) {
        const struct fl_region *region = &orphan->layout.region[i];
        json_array_append_new(regions,
                              json_pack("{s:I, s:I, s:I, s:I}", "base_host_virt_addr",
                                        (json_int_t)region->base, "size", (json_int_t)region->bytes,
                                        "offset", (json_int_t)region->offset, "page_size",
                                        (json_int_t)(1LL << orphan->layout.page_shift)));
    }
    return regions;
}

static json_t *evidence_json(const struct rescue *rescue)
{
    const struct fl_image_match_count *all = &rescue->evidence.all;
    if (!rescue->compared)
        return json_null();
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "compared", (json_int_t)looked_at(all),
                     "same", (json_int_t)all->same, "elsewhere", (json_int_t)all->elsewhere,
                     "changed", (json_int_t)all->changed, "written", (json_int_t)all->written,
                     "silent", (json_int_t)all->silent, "verdict",
                     fit_names[rescue->evidence.verdict]);
}

static void print_orphan_json(const struct rescue *rescue, const struct fl_orphan *orphan,
                              const char *outcome)
{
    json_t *ranges = json_array();
    json_t *holders = json_array();
    for (size_t i = 0; i < orphan->ranges; i++)
        json_array_append_new(ranges, json_pack("{s:I, s:I, s:I}", "start",
                                                (json_int_t)orphan->range[i].start, "bytes",
                                                (json_int_t)orphan->range[i].bytes, "page_size",
                                                (json_int_t)orphan->range[i].page_bytes));
    for (size_t i = 0; i < orphan->holders; i++)
        json_array_append_new(holders, holder_json(&orphan->holder[i]));
    const char *image = rescue->action == RESCUE_SERVE ? rescue->image : "";
    json_t *all = json_pack(
        "{s:i, s:s, s:i, s:I, s:I, s:o, s:o, s:o, s:o, s:s, s:o, s:s, s:s, s:s}", "pid",
        (int)orphan->pid, "name", orphan->name, "fd", orphan->fd, "userfaultfd",
        (json_int_t)orphan->inode, "waiting", (json_int_t)orphan->waiting, "ranges", ranges,
        "holders", holders, "kept", kept_json(orphan), "regions", regions_json(orphan),
        "regions_from", layout_names[orphan->layout_from], "evidence", evidence_json(rescue),
        "action", action_names[rescue->action], "image", image, "outcome", outcome);
    json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
}

// --- text ---

static void print_orphan(const struct rescue *rescue, const struct fl_orphan *orphan)
{
    char bytes[32];
    printf("%s (pid %d): %s of its memory in %zu piece%s; %" PRIu64 " fault%s on its "
           "descriptor %d\n",
           orphan->name, (int)orphan->pid,
           cli_format_bytes(fl_orphan_bytes(orphan), bytes, sizeof(bytes)), orphan->ranges,
           orphan->ranges == 1 ? "" : "s", orphan->waiting,
           orphan->waiting == 1 ? " waits" : "s wait", orphan->fd);
    if (orphan->state)
        printf("its state was kept (by %s, pid %d): image %s, %" PRIu64 " pages given back\n",
               orphan->state_holder.name, (int)orphan->state_holder.pid, orphan->state->image,
               removed_pages(orphan));
    if (rescue->action != RESCUE_SERVE)
        return;
    rescue_say_evidence(stdout, rescue, orphan);
    if (orphan->layout_from == FL_LAYOUT_ASSUMED)
        printf("nothing tells its layout: its memory is taken for the image from the beginning\n");
    json_t *regions = regions_json(orphan);
    char *text = json_dumps(regions, JSON_COMPACT | JSON_PRESERVE_ORDER);
    printf("its regions (%s): %s\n", layout_names[orphan->layout_from], text ? text : "");
    free(text);
    json_decref(regions);
}

static void report_orphan(const struct rescue *rescue, const struct fl_orphan *orphan,
                          const char *outcome)
{
    if (rescue->json)
        print_orphan_json(rescue, orphan, outcome);
    else
        print_orphan(rescue, orphan);
}

void rescue_report_plan(const struct rescue *rescue, const struct fl_orphan *orphan)
{
    report_orphan(rescue, orphan, "nothing done");
    if (rescue->json)
        return;
    if (rescue->action == RESCUE_SERVE)
        printf("it would be served from image %s by the server at %s\n", rescue->image,
               rescue->control);
    else
        printf("it would %s\n", rescue->action == RESCUE_KILL
                                    ? "be killed, and all waits for its memory would end"
                                    : "get SIGBUS for each missing page that it touches");
}

void rescue_report_served(const struct rescue *rescue, const struct fl_orphan *orphan)
{
    static const char *const outcomes[] = {"served", "poisoned by the server",
                                           "killed by the server"};
    report_orphan(rescue, orphan, outcomes[rescue->action]);
    if (rescue->json)
        return;
    if (rescue->action == RESCUE_SERVE)
        printf("the server at %s serves it from image %s\n", rescue->control, rescue->image);
    else
        printf("the server at %s %s\n", rescue->control,
               rescue->action == RESCUE_KILL ? "has killed it, and ends all waits for its memory"
                                             : "answers its faults with poison");
}

void rescue_report_condemned(const struct rescue *rescue, const struct fl_orphan *orphan,
                             const struct fl_answered *done)
{
    report_orphan(rescue, orphan, rescue->action == RESCUE_KILL ? "killed" : "ended");
    if (rescue->json)
        return;
    printf("%s: %" PRIu64 " faults answered, %" PRIu64 " pages poisoned, %" PRIu64 " zeroed\n",
           rescue->action == RESCUE_KILL ? "it was killed, and its memory is gone"
                                         : "its memory is gone",
           done->faults, done->poisoned, done->zeroed);
}

void rescue_say_here(const struct rescue *rescue, const struct fl_orphan *orphan)
{
    if (rescue->action == RESCUE_POISON)
        cli_warn("rescue",
                 "no server can take %s (pid %d): this process answers its faults "
                 "with poison until it ends",
                 orphan->name, (int)orphan->pid);
}

// --- a process that is dying ---

static void print_elsewhere(const struct fl_uffd_case *uffd)
{
    fprintf(stderr,
            "  %" PRIu64 " faults wait on a userfaultfd whose memory is of no process that "
            "can be seen, held by",
            uffd->pending + uffd->unresolved);
    for (size_t i = 0; i < uffd->holders; i++)
        fprintf(stderr, " %s (pid %d, descriptor %d)%s", uffd->holder[i].name,
                (int)uffd->holder[i].pid, uffd->holder[i].fd, i + 1 < uffd->holders ? "," : "");
    if (uffd->holders > 0)
        fprintf(stderr, "; to answer them: faultline rescue --poison --force --fd %d %d",
                uffd->holder[0].fd, (int)uffd->holder[0].pid);
    fputc('\n', stderr);
}

int rescue_fail_gone(pid_t pid, const char *reason)
{
    struct fl_diagnosis found;
    size_t elsewhere = 0;
    cli_fail("rescue", "%s", reason);
    if (kill(pid, 0) != 0 || fl_diagnose(0, &found) != 0)
        return EXIT_FAILED;
    for (size_t i = 0; i < found.cases; i++) {
        if (found.uffd[i].vm == 0 && found.uffd[i].pending + found.uffd[i].unresolved > 0) {
            print_elsewhere(&found.uffd[i]);
            elsewhere++;
        }
    }
    if (elsewhere == 0 && found.unexplained == 0)
        fprintf(stderr,
                "  no task waits on a userfaultfd that could be its own: it ends by itself, "
                "or waits for something else\n");
    else if (elsewhere == 0)
        fprintf(stderr, "  no process holds a userfaultfd that could be its own, so no process can "
                        "answer its faults any more: the wait ends with the host's next boot\n");
    fl_diagnosis_free(&found);
    return EXIT_FAILED;
}
