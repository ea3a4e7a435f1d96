// SPDX-License-Identifier: Apache-2.0
//
// From one engine executable to another, and back if the new one does not live.
//
// The new engine is started as the standby. When it is ready the old one yields and the new one
// takes over; the next standby is of the old executable again, until the new one has passed its
// trial. So going back is what happens at any death of an engine.
#include "engine/keeper/keeper_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/log.h"

enum { READY_MS = 10000 };

const char *fl_keeper_upgrade_name(enum fl_upgrade_state state)
{
    static const char *const names[] = {"none", "starting", "trial",
                                        "done", "failed",   "rolled_back"};
    return names[state];
}

static void set_state(struct fl_keeper *keeper, enum fl_upgrade_state state, const char *reason)
{
    struct fl_upgrade *upgrade = &keeper->upgrade;
    upgrade->state = state;
    snprintf(upgrade->reason, sizeof(upgrade->reason), "%s", reason);
    bool bad = state == FL_UPGRADE_FAILED || state == FL_UPGRADE_ROLLED_BACK;
    fl_log(bad ? FL_LOG_ERROR : FL_LOG_INFO, "event=upgrade state=%s reason=\"%s\"",
           fl_keeper_upgrade_name(state), reason);
    fl_keeper_tell_news(keeper);
}

// Not `set_state(FAILED)`: that is about an upgrade that was begun.
static void refuse_upgrade(struct fl_keeper *keeper, const char *reason)
{
    set_state(keeper, FL_UPGRADE_FAILED, reason);
}

void fl_keeper_upgrade(struct fl_keeper *keeper, const char *path, uint64_t flags)
{
    char reason[sizeof(keeper->upgrade.reason)];
    enum fl_upgrade_state state = keeper->upgrade.state;
    if (state == FL_UPGRADE_STARTING || state == FL_UPGRADE_TRIAL)
        return; // the engine has not heard of it yet, or the client would have
    keeper->upgrade.count++;
    if (keeper->stopping) {
        refuse_upgrade(keeper, "the server is stopping");
        return;
    }
    if (path[0] == '\0') // what an installation has put in our place meanwhile
        path = keeper->path;
    int executable = open(path, O_PATH | O_CLOEXEC);
    if (executable < 0 || faccessat(executable, "", X_OK, AT_EMPTY_PATH) != 0) {
        snprintf(reason, sizeof(reason), "%.100s cannot be run: %s", path, strerror(errno));
        if (executable >= 0)
            close(executable);
        refuse_upgrade(keeper, reason);
        return;
    }
    int error = fl_settings_read(keeper->options->config, keeper->options->config_must_exist,
                                 &keeper->upgrade.settings);
    if (error) {
        snprintf(reason, sizeof(reason), "the configuration file %.80s cannot be read: %s",
                 keeper->options->config, strerror(-error));
        close(executable);
        refuse_upgrade(keeper, reason);
        return;
    }
    keeper->upgrade.executable = executable;
    keeper->upgrade.keeper_too = (flags & FL_UPGRADE_KEEPER) != 0;
    keeper->upgrade.until_ns = fl_now() + READY_MS * FL_NS_PER_MS;
    set_state(keeper, FL_UPGRADE_STARTING, "");
    if (keeper->standby)
        fl_keeper_retire(keeper, keeper->standby);
    fl_keeper_start_standby(keeper);
}

// The new engine is the standby, and ready.
void fl_keeper_upgrade_ready(struct fl_keeper *keeper)
{
    struct fl_upgrade *upgrade = &keeper->upgrade;
    upgrade->until_ns =
        fl_now() + READY_MS * FL_NS_PER_MS + keeper->options->trial_ms * FL_NS_PER_MS;
    set_state(keeper, FL_UPGRADE_TRIAL, "");
    if (keeper->serving) {
        fl_child_set_phase(keeper->serving, FL_CHILD_YIELDING);
        keeper->stall_since_ns = fl_now();
        fl_keeper_send(keeper->serving, FL_MESSAGE_YIELD, 0);
    }
}

static void end_upgrade(struct fl_keeper *keeper)
{
    if (keeper->upgrade.executable >= 0)
        close(keeper->upgrade.executable);
    if (keeper->upgrade.settings >= 0)
        close(keeper->upgrade.settings);
    keeper->upgrade.executable = -1;
    keeper->upgrade.settings = -1;
}

void fl_keeper_upgrade_failed(struct fl_keeper *keeper, const char *reason)
{
    char text[sizeof(keeper->upgrade.reason)];
    bool served = keeper->upgrade.state == FL_UPGRADE_TRIAL;
    snprintf(text, sizeof(text), "the new engine did not %s: %.100s", served ? "live" : "get ready",
             reason);
    end_upgrade(keeper);
    set_state(keeper, served ? FL_UPGRADE_ROLLED_BACK : FL_UPGRADE_FAILED, text);
    keeper->start_after_ns = 0; // a standby of the old executable, at once
}

// VMs wait, and it is not known whether the new engine will ever be ready: the old executable's is
// the sure one.
void fl_keeper_upgrade_called_off(struct fl_keeper *keeper)
{
    if (keeper->standby)
        fl_keeper_retire(keeper, keeper->standby);
    fl_keeper_upgrade_failed(keeper, "the old engine died first");
}

// The new executable is the one from now on, with the file as it was read for it.
static void settle_upgrade(struct fl_keeper *keeper)
{
    struct fl_upgrade *upgrade = &keeper->upgrade;
    close(keeper->executable);
    keeper->executable = upgrade->executable;
    upgrade->executable = -1;
    if (keeper->settings.current != keeper->settings.started)
        close(keeper->settings.current);
    keeper->settings.current = upgrade->settings;
    upgrade->settings = -1;
    set_state(keeper, FL_UPGRADE_DONE, "");
    if (keeper->standby)
        fl_keeper_retire(keeper, keeper->standby);
    keeper->start_after_ns = 0;
    if (!upgrade->keeper_too)
        return;
    int error = fl_keeper_exec(keeper, keeper->executable);
    fl_log(FL_LOG_ERROR, "event=keeper_exec_failed reason=\"%s\"", strerror(-error));
}

static void unstuck(struct fl_keeper *keeper)
{
    struct fl_child *child = keeper->serving;
    if (child)
        fl_child_kill(child); // the rest follows from its end
}

void fl_keeper_upgrade_due(struct fl_keeper *keeper, uint64_t now)
{
    struct fl_upgrade *upgrade = &keeper->upgrade;
    if (now < fl_keeper_upgrade_next_due(keeper))
        return;
    if (upgrade->state == FL_UPGRADE_STARTING) {
        if (keeper->standby)
            fl_keeper_retire(keeper, keeper->standby);
        fl_keeper_upgrade_failed(keeper, "it took too long");
    } else if (keeper->serving && keeper->serving->phase == FL_CHILD_SERVING) {
        settle_upgrade(keeper);
    } else {
        upgrade->until_ns = now + READY_MS * FL_NS_PER_MS;
        unstuck(keeper);
    }
}

uint64_t fl_keeper_upgrade_next_due(const struct fl_keeper *keeper)
{
    const struct fl_upgrade *upgrade = &keeper->upgrade;
    if (upgrade->state == FL_UPGRADE_STARTING)
        return upgrade->until_ns;
    if (upgrade->state != FL_UPGRADE_TRIAL)
        return FL_NEVER;
    const struct fl_child *child = keeper->serving;
    // The trial begins when the new engine serves.
    if (child && child->phase == FL_CHILD_SERVING)
        return child->since_ns + keeper->options->trial_ms * FL_NS_PER_MS;
    return upgrade->until_ns;
}
