// SPDX-License-Identifier: Apache-2.0
#include "engine/base/log_limit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/base/log_level.h"

// Of each limit: the lines in a burst, and then those a second.
static const struct {
    uint64_t burst;
    uint64_t rate;
} limits[FL_LOG_LIMIT_KINDS] = {{100, 10}, {1000, 50}, {4000, 200}};
enum { OF_PEER, OF_IMAGE, OF_EVENT };

#define PAUSE FL_NS_PER_S
#define AT_THE_LATEST (10 * FL_NS_PER_S)

static uint64_t hash_of(const char *event, const char *image, const char *peer)
{
    const char *const words[] = {event, image, peer};
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (unsigned i = 0; i < 3; i++) {
        for (const char *at = words[i]; *at; at++)
            hash = (hash ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
        hash = (hash ^ 0xff) * UINT64_C(0x100000001b3);
    }
    return hash ^ hash >> 32;
}

static void take_place(struct fl_log_limit *limit, struct fl_log_limited *entry, const char *event,
                       const char *image, const char *peer)
{
    limit->forgotten += entry->held;
    *entry = (struct fl_log_limited){0};
    snprintf(entry->event, sizeof(entry->event), "%s", event);
    snprintf(entry->image, sizeof(entry->image), "%s", image);
    snprintf(entry->peer, sizeof(entry->peer), "%s", peer);
}

// The place of the least recent line is taken if there is none yet; rather of one that holds
// nothing back.
static struct fl_log_limited *find_entry(struct fl_log_limit *limit, unsigned kind,
                                         const char *event, const char *image, const char *peer)
{
    struct fl_log_limited *set =
        limit->entry[kind][hash_of(event, image, peer) % FL_LOG_LIMIT_SETS];
    struct fl_log_limited *oldest = set;
    for (unsigned i = 0; i < FL_LOG_LIMIT_WAYS; i++) {
        struct fl_log_limited *entry = &set[i];
        if (strcmp(entry->event, event) == 0 && strcmp(entry->image, image) == 0 &&
            strcmp(entry->peer, peer) == 0)
            return entry;
        if ((entry->held > 0) < (oldest->held > 0) ||
            ((entry->held > 0) == (oldest->held > 0) && entry->turn < oldest->turn))
            oldest = entry;
    }
    take_place(limit, oldest, event, image, peer);
    return oldest;
}

static bool kind_allows(struct fl_log_limit *limit, unsigned kind, const char *event,
                        const char *image, const char *peer, uint64_t now)
{
    struct fl_log_limited *entry = find_entry(limit, kind, event, image, peer);
    uint64_t price = FL_NS_PER_S / limits[kind].rate;
    uint64_t due = entry->due_ns > now ? entry->due_ns : now;
    entry->last_ns = now;
    entry->turn = ++limit->turn;
    if (due + price <= now + limits[kind].burst * price) {
        entry->due_ns = due + price;
        return true;
    }
    if (entry->held++ == 0)
        entry->since_ns = now;
    limit->held++;
    return false;
}

bool fl_log_limit_allows(struct fl_log_limit *limit, const struct fl_log_record *record,
                         uint64_t now_ns)
{
    char event[FL_LOG_LIMIT_WORD];
    char image[FL_LOG_LIMIT_IMAGE];
    char peer[FL_LOG_LIMIT_WORD];
    const char *vm = fl_log_record_get(record, "vm");
    const char *pid = fl_log_record_get(record, "peer");
    if (!*pid)
        pid = fl_log_record_get(record, "pid");
    snprintf(event, sizeof(event), "%s", fl_log_record_get(record, "event"));
    snprintf(image, sizeof(image), "%s", fl_log_record_get(record, "image"));
    // The process, as each of its connections may become another VM.
    snprintf(peer, sizeof(peer), "%s%s", *pid ? "pid " : *vm ? "vm " : "", *pid ? pid : vm);
    if (*peer && !kind_allows(limit, OF_PEER, event, image, peer, now_ns))
        return false;
    if (*image && !kind_allows(limit, OF_IMAGE, event, image, "", now_ns))
        return false;
    return kind_allows(limit, OF_EVENT, event, "", "", now_ns);
}

static void make_line(const struct fl_log_limited *entry, struct fl_log_record *ret_record)
{
    if (*entry->peer)
        fl_log_record_make(ret_record, FL_LOG_WARNING,
                           "event=log_held_back of=%s image=%s peer=%s lines=%" PRIu64,
                           entry->event, entry->image, entry->peer, entry->held);
    else if (*entry->image)
        fl_log_record_make(ret_record, FL_LOG_WARNING,
                           "event=log_held_back of=%s image=%s lines=%" PRIu64, entry->event,
                           entry->image, entry->held);
    else
        fl_log_record_make(ret_record, FL_LOG_WARNING, "event=log_held_back of=%s lines=%" PRIu64,
                           entry->event, entry->held);
}

static bool is_to_be_told(const struct fl_log_limited *entry, uint64_t now, bool all)
{
    return entry->held > 0 &&
           (all || now >= entry->last_ns + PAUSE || now >= entry->since_ns + AT_THE_LATEST);
}

bool fl_log_limit_tell(struct fl_log_limit *limit, uint64_t now_ns, bool all,
                       struct fl_log_record *ret_record)
{
    if (limit->forgotten > 0) {
        fl_log_record_make(ret_record, FL_LOG_WARNING,
                           "event=log_held_back of=several lines=%" PRIu64, limit->forgotten);
        limit->held -= limit->forgotten;
        limit->forgotten = 0;
        return true;
    }
    if (limit->held == 0)
        return false;
    struct fl_log_limited *all_entries = &limit->entry[0][0][0];
    for (size_t i = 0; i < sizeof(limit->entry) / sizeof(*all_entries); i++) {
        struct fl_log_limited *entry = &all_entries[i];
        if (!is_to_be_told(entry, now_ns, all))
            continue;
        make_line(entry, ret_record);
        limit->held -= entry->held;
        entry->held = 0;
        return true;
    }
    return false;
}
