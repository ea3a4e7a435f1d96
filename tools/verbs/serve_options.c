// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/serve_options.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_MODE = 0660, NAME_MAX_BYTES = 256, CACHE_LEAST = 64 << 10 };

void serve_options_init(struct fl_server_options *options)
{
    *options = (struct fl_server_options){
        .engine = fl_engine_defaults,
        .channel = -1,
        .access = {.mode = DEFAULT_MODE, .uid = (uid_t)-1, .gid = (gid_t)-1},
    };
}

static bool find_user(const char *name, uid_t *ret_uid)
{
    uint64_t number = 0;
    const struct passwd *user = NULL;
    if (cli_parse_number(name, 0, UINT32_MAX - 1, &number) == 0) {
        *ret_uid = (uid_t)number;
        return true;
    }
    if (*name != '\0')
        user = getpwnam(name);
    if (user)
        *ret_uid = user->pw_uid;
    return user != NULL;
}

static bool find_group(const char *name, gid_t *ret_gid)
{
    uint64_t number = 0;
    const struct group *group = NULL;
    if (cli_parse_number(name, 0, UINT32_MAX - 1, &number) == 0) {
        *ret_gid = (gid_t)number;
        return true;
    }
    if (*name != '\0')
        group = getgrnam(name);
    if (group)
        *ret_gid = group->gr_gid;
    return group != NULL;
}

const char *take_owner(void *arg, const char *text)
{
    struct fl_socket_access *access = arg;
    char user[NAME_MAX_BYTES];
    const char *colon = strchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof(user))
        return "is not USER:GROUP";
    memcpy(user, text, (size_t)(colon - text));
    user[colon - text] = '\0';
    uid_t uid = 0;
    if (!find_user(user, &uid))
        return "names a user that does not exist";
    if (!find_group(colon + 1, &access->gid))
        return "names a group that does not exist";
    access->uid = uid;
    return NULL;
}

const char *take_mode(void *arg, const char *text)
{
    struct fl_socket_access *access = arg;
    char *end = NULL;
    unsigned long mode = strtoul(text, &end, 8);
    if (strspn(text, "01234567") != strlen(text) || *text == '\0' || mode > 0777)
        return "is not an octal mode from 0 to 777";
    access->mode = (mode_t)mode;
    return NULL;
}

// A cache that is smaller than a frame could keep nothing.
const char *take_cache(void *arg, const char *text)
{
    uint64_t *bytes = arg;
    if (cli_parse_size(text, bytes) < 0)
        return "is not a size, such as 512M or 4G";
    return *bytes < CACHE_LEAST ? "is less than 64K, which is one frame" : NULL;
}

const char *take_nice(void *arg, const char *text)
{
    int *nice = arg;
    uint64_t number = 0;
    bool negative = text[0] == '-';
    if (cli_parse_number(text + negative, 0, negative ? 20 : 19, &number) != 0)
        return "is not a number from -20 to 19";
    *nice = negative ? -(int)number : (int)number;
    return NULL;
}

const char *take_on_error(void *arg, const char *text)
{
    struct fl_engine_options *engine = arg;
    return fl_policy_parse(text, &engine->on_error) ? NULL : "is neither auto, poison nor kill";
}

const char *take_admission(void *arg, const char *text)
{
    static const char *const names[] = {
        [FL_ADMISSION_OFF] = "off", [FL_ADMISSION_WARN] = "warn", [FL_ADMISSION_REFUSE] = "refuse"};
    enum fl_admission *admission = arg;
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *admission = (enum fl_admission)i;
            return NULL;
        }
    }
    return "is neither off, warn nor refuse";
}

const char *take_on_off(void *arg, const char *text)
{
    bool *flag = arg;
    *flag = strcmp(text, "on") == 0;
    return *flag || strcmp(text, "off") == 0 ? NULL : "is neither on nor off";
}
