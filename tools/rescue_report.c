// SPDX-License-Identifier: Apache-2.0
#include "tools/rescue.h"

#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>

#include "engine/bitmap.h"
#include "engine/doctor.h"
#include "tools/cli.h"
#include "tools/verb.h"

static const char *const action_names[] = {"serve", "poison", "kill"};

static uint64_t removed_pages(const struct fl_orphan *orphan)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < orphan->state->layout.pages; i++)
        count += fl_bit_test(fl_vm_removed(orphan->state), i);
    return count;
}

static uint64_t registered_bytes(const struct fl_orphan *orphan)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < orphan->ranges; i++)
        bytes += orphan->range[i].bytes;
    return bytes;
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

static void print_json(const struct rescue *rescue, const struct fl_orphan *orphan,
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
        "{s:i, s:s, s:i, s:I, s:I, s:o, s:o, s:o, s:o, s:b, s:{s:I, s:I}, s:s, s:s, s:s}", "pid",
        (int)orphan->pid, "name", orphan->name, "fd", orphan->fd, "userfaultfd",
        (json_int_t)orphan->inode, "waiting", (json_int_t)orphan->waiting, "ranges", ranges,
        "holders", holders, "kept", kept_json(orphan), "regions", regions_json(orphan), "guessed",
        (int)orphan->layout_guessed, "evidence", "compared", (json_int_t)rescue->evidence.compared,
        "same", (json_int_t)rescue->evidence.same, "action", action_names[rescue->action], "image",
        image, "outcome", outcome);
    json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
}

// --- text ---

static void print_orphan(const struct rescue *rescue, const struct fl_orphan *orphan)
{
    char bytes[32];
    printf("%s (pid %d): %s of its memory in %zu piece%s; %" PRIu64 " faults wait on its "
           "descriptor %d\n",
           orphan->name, (int)orphan->pid,
           cli_format_bytes(registered_bytes(orphan), bytes, sizeof(bytes)), orphan->ranges,
           orphan->ranges == 1 ? "" : "s", orphan->waiting, orphan->fd);
    if (orphan->state)
        printf("what was kept of it (by %s, pid %d): image %s, %" PRIu64 " pages given back\n",
               orphan->state_holder.name, (int)orphan->state_holder.pid, orphan->state->image,
               removed_pages(orphan));
    if (rescue->evidence.compared > 0)
        printf("of %" PRIu64 " pages that it has and that were compared, %" PRIu64
               " are as in image %s\n",
               rescue->evidence.compared, rescue->evidence.same, rescue->image);
    if (rescue->action == RESCUE_SERVE && orphan->layout_guessed)
        printf("its memory is taken for the image from its beginning\n");
}

static void report(const struct rescue *rescue, const struct fl_orphan *orphan, const char *outcome)
{
    if (rescue->json)
        print_json(rescue, orphan, outcome);
    else
        print_orphan(rescue, orphan);
}

void rescue_report_plan(const struct rescue *rescue, const struct fl_orphan *orphan)
{
    report(rescue, orphan, "nothing done");
    if (rescue->json)
        return;
    if (rescue->action == RESCUE_SERVE)
        printf("would be served from image %s by the server at %s\n", rescue->image,
               rescue->control);
    else
        printf("would %s\n", rescue->action == RESCUE_KILL
                                 ? "be killed, and whoever waits let go"
                                 : "get SIGBUS for each missing page that it touches");
}

void rescue_report_served(const struct rescue *rescue, const struct fl_orphan *orphan)
{
    static const char *const outcomes[] = {"served", "poisoned by the server",
                                           "killed by the server"};
    report(rescue, orphan, outcomes[rescue->action]);
    if (rescue->json)
        return;
    if (rescue->action == RESCUE_SERVE)
        printf("the server at %s serves it from image %s\n", rescue->control, rescue->image);
    else
        printf("the server at %s %s\n", rescue->control,
               rescue->action == RESCUE_KILL ? "has killed it, and lets go whoever waits"
                                             : "answers its faults with poison");
}

void rescue_report_condemned(const struct rescue *rescue, const struct fl_orphan *orphan,
                             const struct fl_condemned *done)
{
    report(rescue, orphan, rescue->action == RESCUE_KILL ? "killed" : "ended");
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
        fprintf(stderr,
                "faultline rescue: no server can take %s (pid %d): its faults are answered with "
                "poison from here, until it ends\n",
                orphan->name, (int)orphan->pid);
}

// --- a process that is dying ---

static void print_elsewhere(const struct fl_uffd_case *uffd)
{
    fprintf(stderr,
            "  %" PRIu64 " faults wait on a userfaultfd whose memory is of no process that "
            "is seen, held by",
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
        fprintf(stderr, "  nobody waits on a userfaultfd that could be its own: it ends by itself, "
                        "or waits for something else\n");
    else if (elsewhere == 0)
        fprintf(stderr, "  no process holds a userfaultfd that could be its own, so nobody can "
                        "answer it any more: what waits ends with the host's next boot\n");
    fl_diagnosis_free(&found);
    return EXIT_FAILED;
}
