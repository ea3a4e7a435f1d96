// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/doctor_meetings.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/doctor/doctor_left.h"
#include "tools/verbs/checkpoint.h"

enum { WHERE = FL_DOCTOR_PATH + 64, COMMAND = 2 * WHERE + 64 };

// Commands that work as they are printed, but for an API socket that cannot be found.
struct mend {
    char where[WHERE]; // the directory, as we see it
    char free[COMMAND];
    char resume[COMMAND];
};

static void make_mend(const struct fl_left_meeting *left, struct mend *mend)
{
    struct fl_error error;
    char root[64] = "";
    if (left->pid)
        snprintf(root, sizeof(root), "/proc/%d/root", (int)left->pid);
    snprintf(mend->where, sizeof(mend->where), "%s%s", root, left->path);
    // There is no quote in either path. Where its API is the process says itself.
    if (left->waits)
        snprintf(mend->free, sizeof(mend->free),
                 "timeout 1 cat '%s/memory' > /dev/null; rm -r '%s'", mend->where, mend->where);
    else
        snprintf(mend->free, sizeof(mend->free), "rm -r '%s'", mend->where);
    char *api = left->pid ? checkpoint_find_api(left->pid, &error) : NULL;
    snprintf(mend->resume, sizeof(mend->resume),
             "curl -sSf --unix-socket '%s' -X PATCH -d '{\"state\":\"Resumed\"}' "
             "http://localhost/vm",
             api && fl_doctor_path_is_plain(api) ? api : "API-SOCKET");
    free(api);
}

static void print_one(const struct fl_left_meeting *left)
{
    struct mend mend;
    make_mend(left, &mend);
    if (left->waits)
        printf("%s (pid %d) waits in open() of %s/memory, for ever: a checkpoint of it was killed, "
               "with all that guards it. Its API does not answer, and its VM is paused\n",
               left->name, (int)left->pid, left->path);
    else
        printf("%s was left by a checkpoint that was killed, with all that guards it: its VM may "
               "still be paused\n",
               mend.where);
    printf("  to mend     %s\n", mend.free);
    printf("  to resume   %s\n", mend.resume);
}

void doctor_print_left(const struct fl_diagnosis *found)
{
    for (size_t i = 0; i < found->left_count; i++)
        print_one(&found->left[i]);
}

json_t *doctor_left_json(const struct fl_diagnosis *found)
{
    json_t *list = json_array();
    for (size_t i = 0; i < found->left_count; i++) {
        const struct fl_left_meeting *left = &found->left[i];
        struct mend mend;
        make_mend(left, &mend);
        json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:b, s:s, s:s}", "pid",
                                              (int)left->pid, "name", left->name, "directory",
                                              mend.where, "waits", (int)left->waits, "mend",
                                              mend.free, "resume", mend.resume));
    }
    return list;
}
