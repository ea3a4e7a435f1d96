// SPDX-License-Identifier: Apache-2.0
//
// Which engine serves: starting them, promoting the standby, and what their ends mean.
//
// Theory of operation. Everything here is the keeper's one thread's. The list `children` owns every
// engine process until its end was collected; `serving` and `standby` point to two of them, or to
// none. The phases of an engine move downwards only (keeper_child.h):
//
//   STARTING -> READY           it says so; it is the standby
//   READY -> TAKING_OVER        no engine serves: it is sent the records, and SERVE after the last
//   TAKING_OVER -> SERVING      it says that it serves
//   SERVING -> YIELDING         it was told to touch nothing any more: a newer one takes over
//   any -> DYING                it is killed, or no longer the keeper's to keep
//
// An engine ends twice: it is over when none of its threads runs any more (the VMs need wait no
// longer), and ended when its process can be collected. After either of the two the standby is
// promoted, once. A new standby is started when the one before serves, after a pause that grows
// with failures in a row; when there are too many of them, the VMs are given up (keeper_give_up.c).
#include "engine/base/descriptors.h"
#include "engine/keeper/keeper_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/base/probe.h"
#include "engine/keeper/service_manager.h"
#include "engine/link/death_watch.h"

enum {
    WORDS = 96,
    FREE_FAILURES = 3, // in a row, before starting the next one waits
    MAX_FAILURES = 20, // in a row, before the VMs are given up
    FIRST_PAUSE_MS = 50,
    LONGEST_PAUSE_MS = 2000,
    NEWS_TEXT = 1024,
    AGAIN_MS = 250, // between attempts to start one while VMs wait
};
#define LIVED (250 * FL_NS_PER_MS) // an engine that served for so long has not failed
// For how long VMs wait for a host that lets no process start, before they are given up.
#define SHORTAGE_MOST (300 * FL_NS_PER_S)

// --- talking to it ---

// A channel that does not take a short message has a reader that is stuck: its hang will be seen.
void fl_keeper_send(struct fl_child *child, uint32_t type, uint64_t value)
{
    struct fl_message message = {.type = type, .value = value};
    if (child->channel >= 0)
        fl_channel_send(child->channel, &message, NULL, false);
}

void fl_keeper_tell_news(struct fl_keeper *keeper)
{
    struct fl_message news = {.type = FL_MESSAGE_NEWS};
    char reason[sizeof(keeper->upgrade.reason)];
    char trouble[sizeof(keeper->trouble)];
    struct fl_child *child = keeper->serving;
    if (!child || child->channel < 0)
        return;
    snprintf(news.text, NEWS_TEXT,
             "{\"pid\": %d, \"generation\": %" PRIu64 ", \"deaths\": %" PRIu64
             ", \"stall_us\": %" PRIu64
             ", \"standby_pid\": %d, \"trouble\": \"%s\", \"upgrade\": {\"count\": %" PRIu64
             ", \"state\": \"%s\", \"reason\": \"%s\"}}",
             (int)getpid(), keeper->generation, keeper->deaths, keeper->stall_us,
             keeper->standby ? (int)keeper->standby->pid : 0,
             fl_log_text(keeper->trouble, trouble, sizeof(trouble)), keeper->upgrade.count,
             fl_keeper_upgrade_name(keeper->upgrade.state),
             fl_log_text(keeper->upgrade.reason, reason, sizeof(reason)));
    fl_channel_send(child->channel, &news, NULL, false);
}

void fl_keeper_tell_manager(const struct fl_keeper *keeper)
{
    char text[sizeof("STATUS=degraded: ; ") + sizeof(keeper->degraded) + sizeof(keeper->trouble)];
    bool both = *keeper->degraded && *keeper->trouble;
    bool fine = !*keeper->degraded && !*keeper->trouble;
    if (keeper->stopping) // which it has been told
        return;
    snprintf(text, sizeof(text), "STATUS=%s%s%s%s",
             fine ? "serving" : "degraded: ", keeper->degraded, both ? "; " : "", keeper->trouble);
    fl_sm_notify(text);
}

int fl_keeper_watch_child(struct fl_keeper *keeper, struct fl_child *child)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = child};
    cds_list_add_tail(&child->link, &keeper->children);
    if (epoll_ctl(keeper->epoll_fd, EPOLL_CTL_ADD, child->channel, &event) != 0 ||
        epoll_ctl(keeper->epoll_fd, EPOLL_CTL_ADD, child->pidfd, &event) != 0)
        return -errno;
    return 0;
}

// The channel is open elsewhere, too, and would be watched on.
void fl_keeper_let_go(struct fl_keeper *keeper, struct fl_child *child)
{
    epoll_ctl(keeper->epoll_fd, EPOLL_CTL_DEL, child->channel, NULL);
    epoll_ctl(keeper->epoll_fd, EPOLL_CTL_DEL, child->pidfd, NULL);
    cds_list_del(&child->link);
    fl_child_free(child);
}

int fl_keeper_watch_life(struct fl_keeper *keeper, struct fl_child *child, int life)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = child};
    int error = fl_child_watch_life(child, life);
    if (error || !child->lives)
        return error;
    int fd = fl_death_watch_event_fd(child->lives);
    // As it was READY, and SERVING, it may be watched already.
    return epoll_ctl(keeper->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0 && errno != EEXIST ? -errno
                                                                                          : 0;
}

// --- starting ---

static void pause_before_next(struct fl_keeper *keeper)
{
    uint64_t pause = 0;
    if (keeper->failures > FREE_FAILURES) {
        unsigned shift = keeper->failures - FREE_FAILURES - 1;
        pause = shift < 6 ? (uint64_t)FIRST_PAUSE_MS << shift : LONGEST_PAUSE_MS;
        pause = pause < LONGEST_PAUSE_MS ? pause : LONGEST_PAUSE_MS;
    }
    keeper->start_after_ns = fl_now() + pause * FL_NS_PER_MS;
}

static void engine_failed(struct fl_keeper *keeper)
{
    keeper->failures++;
    pause_before_next(keeper);
    if (keeper->failures < MAX_FAILURES)
        return;
    fl_keeper_fail_closed(keeper, "no engine can be kept alive");
    keeper->exit_status = 1;
    keeper->done = true;
}

// Of the standby; "": it stands by.
static void set_trouble(struct fl_keeper *keeper, const char *trouble)
{
    if (strcmp(keeper->trouble, trouble) == 0)
        return;
    snprintf(keeper->trouble, sizeof(keeper->trouble), "%s", trouble);
    if (*trouble)
        fl_log(FL_LOG_ERROR, "event=engine_failed reason=\"%s\"", trouble);
    fl_keeper_tell_news(keeper);
    fl_keeper_tell_manager(keeper);
}

// The host is short of processes, descriptors or memory: that passes, and costs no VM anything
// while an engine serves. It is no engine that did not live.
static void could_not_start(struct fl_keeper *keeper, int error)
{
    char trouble[sizeof(keeper->trouble)];
    uint64_t now = fl_now();
    bool shortage = error == -EAGAIN || error == -ENOMEM || error == -EMFILE || error == -ENFILE ||
                    error == -ENOSPC;
    snprintf(trouble, sizeof(trouble), "no standby engine can be started: %s", strerror(-error));
    set_trouble(keeper, trouble);
    if (error == -EMFILE) // the limit was lowered below what is held already
        fl_descriptors_fit(2 * FL_KEEPER_RESERVE);
    if (keeper->upgrade.state == FL_UPGRADE_STARTING)
        fl_keeper_upgrade_failed(keeper, "it cannot be started");
    if (!keeper->short_since_ns)
        keeper->short_since_ns = now;
    if (keeper->serving)
        keeper->start_after_ns = now + LONGEST_PAUSE_MS * FL_NS_PER_MS;
    else if (shortage && now - keeper->short_since_ns < SHORTAGE_MOST)
        keeper->start_after_ns = now + AGAIN_MS * FL_NS_PER_MS;
    else
        engine_failed(keeper);
}

void fl_keeper_start_standby(struct fl_keeper *keeper)
{
    bool new = keeper->upgrade.state == FL_UPGRADE_STARTING;
    int executable = new ? keeper->upgrade.executable : keeper->executable;
    struct fl_settings settings = keeper->settings;
    struct fl_child *child = NULL;
    if (new)
        settings.current = keeper->upgrade.settings;
    fl_keeper_stir(keeper);
    fl_keeper_unreserve(keeper);
    int error = fl_child_start(executable, keeper->options->argv, keeper->sockets_lock.fd,
                               &settings, &child);
    if (!error)
        error = fl_keeper_watch_child(keeper, child);
    if (error && child) { // its end would not be seen
        fl_child_kill(child);
        waitpid(child->pid, NULL, 0);
        cds_list_del(&child->link);
        fl_child_free(child);
    }
    if (error) {
        could_not_start(keeper, error);
        return;
    }
    keeper->standby = child;
    keeper->short_since_ns = 0;
    set_trouble(keeper, "");
}

// --- serving ---

// The standby takes over, if there is one that is ready; else as soon as one is.
void fl_keeper_promote(struct fl_keeper *keeper)
{
    struct fl_child *child = keeper->standby;
    if (keeper->serving || !child || child->phase != FL_CHILD_READY)
        return;
    keeper->serving = child;
    keeper->standby = NULL;
    fl_child_set_phase(child, FL_CHILD_TAKING_OVER);
    child->next = fl_records_next(&keeper->records, NULL);
    child->next_slot = 0;
    child->pinged_ns = 0;
    // The next standby is started when this one serves: they would get into each other's way.
    keeper->start_after_ns = FL_NEVER;
    fl_keeper_go_on_sending(keeper, child);
}

void fl_keeper_served(struct fl_keeper *keeper, struct fl_child *child, uint64_t vms)
{
    uint64_t now = fl_now();
    fl_log(FL_LOG_INFO,
           "event=engine_serving pid=%d generation=%" PRIu64 " vms=%" PRIu64 " us=%" PRIu64,
           (int)child->pid, keeper->generation + 1, vms, (now - child->since_ns) / FL_NS_PER_US);
    FL_PROBE(takeover_end, child->pid, vms, now - child->since_ns);
    fl_child_set_phase(child, FL_CHILD_SERVING);
    child->pinged_ns = 0;
    keeper->generation++;
    if (keeper->stall_since_ns)
        keeper->stall_us = (now - keeper->stall_since_ns) / FL_NS_PER_US + 1;
    keeper->stall_since_ns = 0;
    if (!keeper->announced)
        fl_sm_notify("READY=1\nSTATUS=serving");
    keeper->announced = true;
    if (child->born)
        fl_keeper_set_ready(keeper, true);
    pause_before_next(keeper);
    if (keeper->stopping)
        fl_keeper_send(child, FL_MESSAGE_STOP,
                       keeper->stop_ns > now ? (keeper->stop_ns - now) / FL_NS_PER_MS : 0);
    fl_keeper_tell_news(keeper);
}

// --- ends ---

// Whatever it was, it is nothing any more.
void fl_keeper_retire(struct fl_keeper *keeper, struct fl_child *child)
{
    if (keeper->serving == child)
        keeper->serving = NULL;
    if (keeper->standby == child)
        keeper->standby = NULL;
    fl_child_set_phase(child, FL_CHILD_DYING);
    fl_child_kill(child);
}

static void serving_ended(struct fl_keeper *keeper, struct fl_child *child,
                          enum fl_child_phase phase, int status, const char *words)
{
    bool lived = phase == FL_CHILD_SERVING && fl_now() - child->since_ns >= LIVED;
    keeper->serving = NULL;
    FL_PROBE(takeover_begin, child->pid, keeper->records.vms);
    if (!keeper->stall_since_ns) // else it has yielded, or another one died before
        keeper->stall_since_ns = fl_now();
    if (keeper->engine_ended) {
        // Of one that another keeper started it is not known; but it has said that all is well.
        keeper->exit_status = status >= 0 ? status : child->born;
        keeper->done = true;
        return;
    }
    keeper->deaths += phase != FL_CHILD_YIELDING;
    if (keeper->upgrade.state == FL_UPGRADE_TRIAL && phase != FL_CHILD_YIELDING)
        fl_keeper_upgrade_failed(keeper, words);
    if (lived || phase == FL_CHILD_YIELDING) {
        keeper->failures = 0;
        pause_before_next(keeper); // none: VMs wait, whatever became of the last standby
    } else {
        engine_failed(keeper);
    }
    if (keeper->upgrade.state == FL_UPGRADE_STARTING && !keeper->done)
        fl_keeper_upgrade_called_off(keeper);
    fl_keeper_promote(keeper);
}

static void standby_ended(struct fl_keeper *keeper, int status, const char *words)
{
    enum { WRONG_OPTIONS = 2 }; // the exit status of the command that says so
    keeper->standby = NULL;
    if (keeper->upgrade.state == FL_UPGRADE_STARTING && status == WRONG_OPTIONS)
        words = "its options or the configuration file are wrong, as its log says";
    if (keeper->upgrade.state == FL_UPGRADE_STARTING) {
        fl_keeper_upgrade_failed(keeper, words);
        return;
    }
    if (keeper->serving) { // no VM waits: no haste, and no reason to give up
        keeper->start_after_ns = fl_now() + LONGEST_PAUSE_MS * FL_NS_PER_MS;
        return;
    }
    engine_failed(keeper);
}

static void log_end(const struct fl_keeper *keeper, const struct fl_child *child, const char *words)
{
    if (child->phase == FL_CHILD_DYING) // as we wanted it
        return;
    if (keeper->engine_ended)
        fl_log(FL_LOG_INFO, "event=engine_ended pid=%d reason=\"%s\" vms=%" PRIu64, (int)child->pid,
               words, keeper->records.vms);
    else
        fl_log(FL_LOG_ERROR, "event=engine_died pid=%d reason=\"%s\" vms=%" PRIu64, (int)child->pid,
               words, keeper->records.vms);
}

// Its memory is still being freed, which VMs need not wait for. How it ended is not known yet.
void fl_keeper_child_over(struct fl_keeper *keeper, struct fl_child *child)
{
    // Before anything has served, its exit status decides what is to be done.
    if (keeper->serving != child || keeper->generation == 0 || !fl_child_is_over(child))
        return;
    fl_keeper_receive(keeper, child); // its last words
    if (keeper->serving != child || keeper->engine_ended)
        return;
    serving_ended(keeper, child, child->phase, -1, "it ended");
    fl_keeper_tell_news(keeper);
}

void fl_keeper_child_ended(struct fl_keeper *keeper, struct fl_child *child)
{
    char words[WORDS];
    int status = -1;
    enum fl_child_phase phase = child->phase;
    if (fl_child_ended(child, &status, words, sizeof(words)) != 0)
        return;
    fl_keeper_receive(keeper, child); // its last words
    cds_list_del(&child->link);
    // An error of the operator's, of which it has spoken itself, and no VM depends on us.
    if (keeper->generation == 0 && status > 0 && keeper->records.vms == 0) {
        keeper->exit_status = status;
        keeper->done = true;
        keeper->serving = keeper->serving == child ? NULL : keeper->serving;
        keeper->standby = keeper->standby == child ? NULL : keeper->standby;
    } else {
        log_end(keeper, child, words);
        if (keeper->serving == child)
            serving_ended(keeper, child, phase, status, words);
        else if (keeper->standby == child)
            standby_ended(keeper, status, words);
    }
    fl_child_free(child);
    fl_keeper_stir(keeper);
    fl_keeper_tell_news(keeper);
}
