// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/qemu_api.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "engine/base/clock.h"

// The descriptor's name in QEMU.
#define FD_NAME "faultline-checkpoint"
#define IGNORE_SHARED "x-ignore-shared"

enum { ASK_MS = 10000, LOOK_EVERY_MS = 5 };

static int say_odd(const struct qmp *qmp, const char *command, struct fl_error *ret_error)
{
    return fl_fail_plain(ret_error, -EPROTO,
                         "the answer of the QEMU at %s to '%s' is not understood", qmp->path,
                         command);
}

static bool is_one_of(const char *text, const char *const *words)
{
    for (; text && *words; words++) {
        if (strcmp(text, *words) == 0)
            return true;
    }
    return false;
}

int qemu_is_running(struct qmp *qmp, bool *ret_running, struct fl_error *ret_error)
{
    static const char *const stopped[] = {"paused", "postmigrate", NULL};
    json_t *answer = NULL;
    int error = qmp_order(qmp, "query-status", NULL, -1, ASK_MS, &answer, ret_error);
    if (error)
        return error;
    const char *state = json_string_value(json_object_get(answer, "status"));
    *ret_running = json_is_true(json_object_get(answer, "running"));
    if (!state)
        error = say_odd(qmp, "query-status", ret_error);
    else if (!*ret_running && !is_one_of(state, stopped))
        error = fl_fail_plain(ret_error, -EBUSY,
                              "the QEMU at %s neither runs nor is it paused: its state is '%s'",
                              qmp->path, state);
    json_decref(answer);
    return error;
}

int qemu_check_memory(struct qmp *qmp, struct fl_error *ret_error)
{
    size_t i;
    const json_t *backend;
    json_t *answer = NULL;
    int error = qmp_order(qmp, "query-memdev", NULL, -1, ASK_MS, &answer, ret_error);
    if (error)
        return error;
    if (json_array_size(answer) != 1)
        error = fl_fail_plain(ret_error, -EINVAL,
                              "the QEMU at %s has %zu memory backends, and not one "
                              "(-object memory-backend-file) with all of its memory",
                              qmp->path, json_array_size(answer));
    json_array_foreach(answer, i, backend)
    {
        const char *id = json_string_value(json_object_get(backend, "id"));
        if (!error && !json_is_true(json_object_get(backend, "share")))
            error = fl_fail_plain(ret_error, -EINVAL,
                                  "the memory backend '%s' of the QEMU at %s has no share=on: QEMU "
                                  "would write its memory into the state",
                                  id ? id : "?", qmp->path);
    }
    json_decref(answer);
    return error;
}

int qemu_ignores_shared(struct qmp *qmp, bool *ret_set, struct fl_error *ret_error)
{
    size_t i;
    const json_t *one;
    json_t *answer = NULL;
    bool known = false;
    int error = qmp_order(qmp, "query-migrate-capabilities", NULL, -1, ASK_MS, &answer, ret_error);
    if (error)
        return error;
    json_array_foreach(answer, i, one)
    {
        const char *name = json_string_value(json_object_get(one, "capability"));
        if (name && strcmp(name, IGNORE_SHARED) == 0) {
            known = true;
            *ret_set = json_is_true(json_object_get(one, "state"));
        }
    }
    json_decref(answer);
    if (known)
        return 0;
    return fl_fail_plain(ret_error, -EOPNOTSUPP,
                         "the QEMU at %s, version %s, cannot leave the memory out of its state: it "
                         "has no capability " IGNORE_SHARED,
                         qmp->path, qmp->version);
}

int qemu_ignore_shared(struct qmp *qmp, bool set, struct fl_error *ret_error)
{
    json_t *arguments = json_pack("{s:[{s:s, s:b}]}", "capabilities", "capability", IGNORE_SHARED,
                                  "state", (int)set);
    return qmp_order(qmp, "migrate-set-capabilities", arguments, -1, ASK_MS, NULL, ret_error);
}

int qemu_stop(struct qmp *qmp, unsigned timeout_ms, struct fl_error *ret_error)
{
    return qmp_order(qmp, "stop", NULL, -1, timeout_ms, NULL, ret_error);
}

int qemu_cont(struct qmp *qmp, unsigned timeout_ms, struct fl_error *ret_error)
{
    return qmp_order(qmp, "cont", NULL, -1, timeout_ms, NULL, ret_error);
}

int qemu_migrate(struct qmp *qmp, int fd, struct fl_error *ret_error)
{
    int error =
        qmp_order(qmp, "getfd", json_pack("{s:s}", "fdname", FD_NAME), fd, ASK_MS, NULL, ret_error);
    if (error)
        return error;
    error = qmp_order(qmp, "migrate", json_pack("{s:s}", "uri", "fd:" FD_NAME), -1, ASK_MS, NULL,
                      ret_error);
    if (error) // it has not taken the descriptor, or it is of no use
        qmp_order(qmp, "closefd", json_pack("{s:s}", "fdname", FD_NAME), -1, ASK_MS, NULL, NULL);
    return error;
}

int qemu_look(struct qmp *qmp, enum qemu_migration *ret_migration, struct fl_error *ret_error)
{
    static const char *const going_on[] = {"setup",  "cancelling",  "active", "pre-switchover",
                                           "device", "wait-unplug", NULL};
    json_t *answer = NULL;
    int error = qmp_order(qmp, "query-migrate", NULL, -1, ASK_MS, &answer, ret_error);
    if (error)
        return error;
    const char *state = json_string_value(json_object_get(answer, "status"));
    const char *why = json_string_value(json_object_get(answer, "error-desc"));
    if (!state || strcmp(state, "none") == 0)
        *ret_migration = QEMU_MIGRATES_NOTHING;
    else if (strcmp(state, "completed") == 0)
        *ret_migration = QEMU_HAS_MIGRATED;
    else if (is_one_of(state, going_on))
        *ret_migration = QEMU_MIGRATES;
    else
        *ret_migration = QEMU_FAILED;
    if (*ret_migration == QEMU_FAILED)
        fl_fail_plain(ret_error, -EREMOTEIO,
                      "the QEMU at %s cannot write the state of its devices: %s", qmp->path,
                      why ? why : state);
    json_decref(answer);
    return 0;
}

int qemu_cancel(struct qmp *qmp, unsigned timeout_ms)
{
    uint64_t end = fl_now() + timeout_ms * FL_NS_PER_MS;
    enum qemu_migration migration = QEMU_MIGRATES;
    int error = qmp_order(qmp, "migrate_cancel", NULL, -1, timeout_ms, NULL, NULL);
    while (!error && migration == QEMU_MIGRATES) {
        error = qemu_look(qmp, &migration, NULL);
        if (!error && fl_now() >= end)
            error = -ETIMEDOUT;
        if (!error && migration == QEMU_MIGRATES)
            poll(NULL, 0, LOOK_EVERY_MS);
    }
    return error;
}
