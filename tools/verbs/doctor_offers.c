// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/doctor_offers.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/clock.h"

#include "tools/cli/cli.h"

enum { COMMAND = PATH_MAX + 64, PATIENCE_MS = 3000 };

// Works as it is printed, unless there is a quote in the path.
static const char *mend(const char *store, char command[COMMAND])
{
    snprintf(command, COMMAND, "faultline gc --store '%s'", strchr(store, '\'') ? "STORE" : store);
    return cli_plain(command);
}

static size_t keep_left(struct fl_offer_info *all, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (all[i].left)
            all[kept++] = all[i];
    }
    return kept;
}

static void find(const char *store, struct offers *ret_offers)
{
    struct fl_store *opened;
    struct fl_error error;
    *ret_offers = (struct offers){.all = NULL};
    if (fl_store_open(store, false, &opened, &error) != 0)
        return;
    offers_find("doctor", opened, ret_offers);
    ret_offers->count = keep_left(ret_offers->all, ret_offers->count);
    fl_store_close(opened);
}

// In a process of its own.
static void tell(const char *store, int to)
{
    struct offers offers;
    find(store, &offers);
    const char *at = (const char *)offers.all;
    size_t left = offers.count * sizeof(*offers.all);
    while (left > 0) {
        ssize_t done = write(to, at, left);
        if (done < 0)
            _exit(1);
        at += done;
        left -= (size_t)done;
    }
    _exit(0);
}

static bool comes(int from, uint64_t until)
{
    struct pollfd more = {.fd = from, .events = POLLIN};
    struct timespec left = fl_until(fl_now(), until);
    return ppoll(&more, 1, &left, NULL) == 1;
}

// False: there is no memory, or the time is up.
static bool hear(int from, uint64_t until, struct offers *offers)
{
    size_t used = 0;
    size_t room = 0;
    ssize_t got = 1;
    void *all = NULL;
    while (got > 0 && comes(from, until)) {
        room = used == room ? 2 * room + sizeof(*offers->all) : room;
        void *more = realloc(all, room);
        if (!more)
            break;
        all = more;
        got = read(from, (char *)all + used, room - used);
        used += got > 0 ? (size_t)got : 0;
    }
    offers->all = all;
    offers->count = used / sizeof(*offers->all);
    return got == 0;
}

// What makes VMs wait may be the disk that the store is on, or the server of its file system: who
// asks either may wait for ever, and not even SIGKILL may end that.
void doctor_find_offers(const char *store, struct offers *ret_offers)
{
    int ends[2];
    *ret_offers = (struct offers){.silent = true};
    fflush(NULL);
    if (pipe2(ends, O_CLOEXEC) != 0)
        return;
    pid_t pid = fork();
    if (pid == 0)
        tell(store, ends[1]);
    close(ends[1]);
    if (pid > 0)
        ret_offers->silent = !hear(ends[0], fl_now() + PATIENCE_MS * FL_NS_PER_MS, ret_offers);
    if (pid > 0 && ret_offers->silent)
        kill(pid, SIGKILL); // whoever collects it: we may not wait
    else if (pid > 0)
        waitpid(pid, NULL, 0);
    close(ends[0]);
}

void doctor_print_offers(const char *store, const struct offers *offers)
{
    char command[COMMAND];
    if (offers->silent)
        printf(
            "the store %s cannot be looked at, or does not answer within 3 s: its disk hangs, or "
            "the server of its file system\n",
            store);
    for (size_t i = 0; i < offers->count; i++)
        printf("image %s was on offer, and the process that packed it was killed: the pages "
               "that are not packed will never come, and a VM that was restored from it ends when "
               "it touches one\n",
               offers->all[i].name);
    if (offers->count > 0)
        printf("  to mend     %s\n", mend(store, command));
}

json_t *doctor_offers_json(const char *store, const struct offers *offers)
{
    char command[COMMAND];
    json_t *list = offers->silent ? json_null() : json_array();
    json_t *path = json_string(store);
    json_t *command_text = json_string(mend(store, command));
    for (size_t i = 0; i < offers->count; i++)
        json_array_append_new(list, json_pack("{s:s, s:O?, s:O?}", "image", offers->all[i].name,
                                              "store", path, "mend", command_text));
    json_decref(path);
    json_decref(command_text);
    return list;
}
