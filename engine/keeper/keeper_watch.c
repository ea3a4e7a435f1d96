// SPDX-License-Identifier: Apache-2.0
//
// Is the engine alive? It is asked once a second, and answers when each of its threads has; and
// the userfaultfds themselves tell of faults that no thread reads. When nothing has happened for a
// while, and nothing looks suspicious, both are done seldom (pace.h): what is suspicious is still
// looked at once a second, so that an engine that hangs lives but one long pause longer.
#include "engine/keeper/keeper_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/vm/vm_state.h"

#define END_LIMIT (500 * FL_NS_PER_MS)
enum { LOOKS_IN_LIMIT = 2 };             // in --hang-timeout, at least
#define YIELD_LIMIT (500 * FL_NS_PER_MS) // its workers are at the end of a round by then

// A number that grows with every message of the VM that is read, as its owner counts them.
static uint64_t messages_read(const struct fl_record *record)
{
    struct fl_vm_counters counters;
    off_t at = offsetof(struct fl_vm_state, counters);
    if (pread(record->fd[FL_VM_STATE], &counters, sizeof(counters), at) !=
        (ssize_t)sizeof(counters))
        return 0;
    return fl_counter_get(&counters.faults) + fl_counter_get(&counters.removed);
}

// True if a message of this VM has been waiting to be read for too long: some can be seen there at
// every look, and none was read in between.
static bool waits_too_long(struct fl_record *record, bool readable, uint64_t now, uint64_t limit)
{
    if (!readable) {
        record->waiting_since_ns = 0;
        return false;
    }
    uint64_t count = messages_read(record);
    if (!record->waiting_since_ns || count != record->read_seen)
        record->waiting_since_ns = now;
    record->read_seen = count;
    return now - record->waiting_since_ns > limit;
}

static bool has_uffd(const struct fl_record *record)
{
    return record->slots == FL_VM_SLOTS && record->fd[FL_VM_UFFD] >= 0 &&
           record->fd[FL_VM_STATE] >= 0;
}

// Its owner is in the kernel for it, and reads on when that lets it: a kill would not mend that.
static bool waits_for_itself(const struct fl_keeper *keeper, const struct fl_record *record)
{
    return record->held || fl_child_holds(keeper->serving, record->id);
}

// The id of a VM whose faults no thread reads; 0 if there is none. *ret_any: some VM has
// messages that wait, as they do for a moment when all is well, or waits for an older engine.
static uint64_t find_unread(struct fl_keeper *keeper, uint64_t now, uint64_t limit, bool *ret_any)
{
    struct fl_record *record;
    uint64_t found = 0;
    nfds_t count = 0;
    struct pollfd *list = calloc(keeper->records.vms + 1, sizeof(*list));
    if (!list)
        return 0;
    cds_list_for_each_entry(record, &keeper->records.kind[FL_RECORD_VM], in_kind) list[count++] =
        (struct pollfd){.fd = has_uffd(record) ? record->fd[FL_VM_UFFD] : -1, .events = POLLIN};
    int any = poll(list, count, 0);
    count = 0;
    cds_list_for_each_entry(record, &keeper->records.kind[FL_RECORD_VM], in_kind)
    {
        bool readable =
            any > 0 && list[count].revents & POLLIN && !waits_for_itself(keeper, record);
        count++;
        *ret_any |= readable || record->held;
        if (waits_too_long(record, readable, now, limit) && !found)
            found = record->id;
    }
    free(list);
    return found;
}

static void hangs(struct fl_keeper *keeper, const char *what, uint64_t vm)
{
    fl_log(FL_LOG_ERROR, "event=engine_hangs pid=%d vm=%" PRIu64 " reason=\"%s\"",
           (int)keeper->serving->pid, vm, what);
    fl_child_kill(keeper->serving); // the rest follows from its end
}

// True if nothing about it is suspicious.
static bool look_at_serving(struct fl_keeper *keeper, uint64_t now)
{
    struct fl_child *child = keeper->serving;
    uint64_t limit = keeper->options->hang_timeout_ms * FL_NS_PER_MS;
    bool waits = false;
    if (child->phase == FL_CHILD_YIELDING) {
        if (now - child->since_ns > YIELD_LIMIT)
            hangs(keeper, "it did not yield", 0);
        return false;
    }
    bool serves = child->phase == FL_CHILD_SERVING;
    uint64_t asked = serves ? child->pinged_ns : child->since_ns;
    if (asked && now - asked > limit) {
        hangs(keeper, serves ? "it does not answer" : "it does not take over", 0);
        return false;
    }
    if (!serves)
        return false;
    // It would have poisoned the page by now, if all were well with it.
    if (child->oldest_ns > keeper->options->fault_timeout_ms * FL_NS_PER_MS + limit) {
        hangs(keeper, "a fault that it has read has waited too long", 0);
        return false;
    }
    uint64_t vm = find_unread(keeper, now, limit, &waits);
    bool answered = child->pinged_ns == 0;
    if (vm) {
        hangs(keeper, "it does not read the faults of a VM", vm);
    } else if (answered) {
        child->pinged_ns = now;
        fl_keeper_send(child, FL_MESSAGE_PING, fl_keeper_room(keeper));
    }
    return answered && !waits && child->oldest_ns == 0;
}

// One that has been starting for long has failed.
static void look_at_standby(struct fl_keeper *keeper, uint64_t now)
{
    struct fl_child *child = keeper->standby;
    uint64_t limit = keeper->options->hang_timeout_ms * FL_NS_PER_MS;
    if (child->phase == FL_CHILD_STARTING && now - child->since_ns > limit)
        fl_child_kill(child);
}

// One that has hung up should be gone; what it does with VMs that another serves by now is not to
// be waited for.
static void look_at_endings(struct fl_keeper *keeper, uint64_t now)
{
    struct fl_child *child;
    cds_list_for_each_entry(child, &keeper->children, link)
    {
        if (child->ended_ns && now - child->ended_ns > END_LIMIT && !keeper->engine_ended)
            fl_child_kill(child);
    }
}

void fl_keeper_stir(struct fl_keeper *keeper)
{
    uint64_t now = fl_now();
    fl_pace_news(&keeper->pace, now);
    if (keeper->look_ns > now + FL_PACE_OFTEN)
        keeper->look_ns = now + FL_PACE_OFTEN;
}

// An engine serves, another stands by, no third one is left, and all that is to be kept is.
static bool is_settled(const struct fl_keeper *keeper)
{
    const struct fl_child *child;
    cds_list_for_each_entry(child, &keeper->children, link)
    {
        if (child != keeper->serving && child != keeper->standby)
            return false;
    }
    return keeper->serving && keeper->standby && keeper->standby->phase == FL_CHILD_READY &&
           keeper->upgrade.state != FL_UPGRADE_STARTING &&
           keeper->upgrade.state != FL_UPGRADE_TRIAL && !keeper->stopping && !keeper->leaving &&
           !keeper->incomplete && (keeper->sockets_lock.held || keeper->sockets_lock.fd < 0) &&
           keeper->reserved == FL_KEEPER_RESERVE;
}

void fl_keeper_look(struct fl_keeper *keeper, uint64_t now)
{
    uint64_t limit = keeper->options->hang_timeout_ms * FL_NS_PER_MS;
    look_at_endings(keeper, now);
    fl_keeper_collect_commands(keeper);
    bool calm = fl_records_store_again(&keeper->records);
    fl_keeper_free_held(keeper);
    fl_keeper_complete(keeper);
    fl_sockets_lock_again(&keeper->sockets_lock);
    if (keeper->standby && keeper->standby->phase == FL_CHILD_READY)
        fl_keeper_reserve(keeper);
    if (keeper->serving)
        calm &= look_at_serving(keeper, now);
    if (keeper->standby)
        look_at_standby(keeper, now);
    calm &= is_settled(keeper);
    keeper->look_ns =
        now + (calm ? fl_pace_every(&keeper->pace, now, limit / LOOKS_IN_LIMIT) : FL_PACE_OFTEN);
}
