// SPDX-License-Identifier: Apache-2.0
#include "engine/link/degraded.h"

#include <stdarg.h>
#include <string.h>

#include "engine/base/log.h"
#include "engine/link/keeper_link.h"

static const char *const names[FL_LACKS] = {
    [FL_LACK_STORE] = "store",
    [FL_LACK_SOCKETS] = "sockets",
    [FL_LACK_CONTROL] = "control",
    [FL_LACK_KEEPER] = "keeper_socket",
    [FL_LACK_INOTIFY] = "inotify",
    [FL_LACK_DESCRIPTORS] = "descriptors",
    [FL_LACK_FILTER] = "seccomp",
    [FL_LACK_COUNTERS] = "counters",
    [FL_LACK_OBSERVE] = "observe",
    [FL_LACK_METRICS] = "metrics",
    [FL_LACK_RUNNING_KEEPER] = "keeper",
    [FL_LACK_IMAGES] = "images",
    [FL_LACK_HUGE] = "huge",
    [FL_LACK_FILES] = "files",
};

const char *fl_lack_name(enum fl_lack lack)
{
    return names[lack];
}

void fl_degraded_tell(const struct fl_degraded *degraded)
{
    char all[FL_LACKS * (FL_LACK_REASON + 2)] = "";
    size_t used = 0;
    for (int lack = 0; lack < FL_LACKS; lack++) {
        const char *reason = degraded->reason[lack];
        if (*reason)
            used +=
                (size_t)snprintf(all + used, sizeof(all) - used, "%s%s", used ? "; " : "", reason);
    }
    fl_keeper_link_degraded(degraded->keeper_link, all);
}

void fl_lacks(struct fl_degraded *degraded, enum fl_lack lack, const char *format, ...)
{
    char *reason = degraded->reason[lack];
    char text[FL_LACK_REASON];
    char clean[FL_LACK_REASON];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fl_log_text(text, clean, sizeof(clean));
    for (char *c = clean; *c; c++) // a path need not be UTF-8, but the status must
        *c = (unsigned char)*c < 0x80 ? *c : '?';
    if (strcmp(reason, clean) == 0)
        return;
    memcpy(reason, clean, sizeof(clean));
    fl_log(FL_LOG_ERROR, "event=degraded what=%s reason=\"%s\"", names[lack], reason);
    fl_degraded_tell(degraded);
}

void fl_has(struct fl_degraded *degraded, enum fl_lack lack)
{
    char *reason = degraded->reason[lack];
    if (!*reason)
        return;
    *reason = '\0';
    fl_log(FL_LOG_INFO, "event=restored what=%s", names[lack]);
    fl_degraded_tell(degraded);
}

static void add_lack(json_t *list, const char *what, const char *reason)
{
    if (*reason)
        json_array_append_new(list, json_pack("{s:s, s:s}", "what", what, "reason", reason));
}

json_t *fl_degraded_json(const struct fl_degraded *degraded)
{
    const char *trouble = "";
    json_t *list = json_array();
    json_t *news = json_loads(fl_keeper_link_news(degraded->keeper_link), JSON_DECODE_ANY, NULL);
    for (int lack = 0; lack < FL_LACKS; lack++)
        add_lack(list, names[lack], degraded->reason[lack]);
    json_unpack(news, "{s:s}", "trouble", &trouble);
    add_lack(list, "standby", trouble);
    json_decref(news);
    return list;
}

void fl_degraded_metrics(const struct fl_degraded *degraded, FILE *out)
{
    for (int lack = 0; lack < FL_LACKS; lack++)
        fprintf(out, "faultline_degraded{what=\"%s\"} %d\n", names[lack],
                *degraded->reason[lack] != '\0');
}
