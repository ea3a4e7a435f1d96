// SPDX-License-Identifier: Apache-2.0
#include "snapshot/findings.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "snapshot/bad_list.h"
#include "snapshot/heal.h"

int fl_findings_add(struct fl_findings *findings, struct fl_frame_id id, const char *format, ...)
{
    if (findings->count == findings->room) {
        size_t room = findings->room ? findings->room * 2 : 16;
        struct fl_finding *grown = realloc(findings->items, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        findings->items = grown;
        findings->room = room;
    }
    struct fl_finding *finding = &findings->items[findings->count];
    va_list args;
    finding->id = id;
    va_start(args, format);
    vsnprintf(finding->problem, sizeof(finding->problem), format, args);
    va_end(args);
    int r = fl_bad_frames_add(&findings->bad, id);
    findings->count += r == 0;
    return r;
}

static int compare_findings(const void *a, const void *b)
{
    const struct fl_finding *left = a;
    const struct fl_finding *right = b;
    if (left->id.pack != right->id.pack)
        return left->id.pack < right->id.pack ? -1 : 1;
    return left->id.frame < right->id.frame ? -1 : left->id.frame > right->id.frame;
}

static int split(struct fl_findings *findings, const struct fl_heal *heal,
                 struct fl_bad_frames *needed, struct fl_bad_frames *unused)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < findings->bad.count; i++)
        r = fl_bad_frames_add(fl_heal_needs(heal, i) ? needed : unused, findings->bad.ids[i]);
    return r;
}

int fl_findings_settle(struct fl_findings *findings, struct fl_store *store, const uint64_t *packs,
                       size_t packs_count, void (*report)(void *arg, const struct fl_finding *),
                       void *arg, uint64_t *ret_unneeded, bool *ret_list_written)
{
    struct fl_heal *heal = NULL;
    struct fl_bad_frames needed = {.ids = NULL};
    struct fl_bad_frames unused = {.ids = NULL};
    fl_bad_frames_sort(&findings->bad);
    int r = findings->count > 0 ? fl_heal_new(store, &findings->bad, true, NULL, &heal) : 0;
    if (r == 0 && heal)
        r = split(findings, heal, &needed, &unused);
    if (findings->count > 1)
        qsort(findings->items, findings->count, sizeof(*findings->items), compare_findings);
    for (size_t i = 0; r == 0 && i < findings->count; i++) {
        if (fl_bad_frames_find(&needed, findings->items[i].id))
            report(arg, &findings->items[i]);
    }
    *ret_unneeded = unused.count;
    *ret_list_written =
        r == 0 && fl_bad_list_change(
                      store, &(struct fl_bad_change){packs, packs_count, &needed, &unused}) == 0;
    fl_heal_free(heal);
    fl_bad_frames_free(&needed);
    fl_bad_frames_free(&unused);
    return r;
}

void fl_findings_free(struct fl_findings *findings)
{
    free(findings->items);
    fl_bad_frames_free(&findings->bad);
    *findings = (struct fl_findings){.items = NULL};
}
