// SPDX-License-Identifier: Apache-2.0
#include "engine/template/templates_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/template/template.h"

bool fl_template_path(const struct fl_template *template, const char *suffix, char path[PATH_MAX])
{
    return snprintf(path, PATH_MAX, "%s/%s%s", fl_template_table(template)->options.sockets,
                    template->state->image, suffix) < PATH_MAX;
}

static void link_target(const struct fl_template *template, char target[64])
{
    snprintf(target, 64, "/proc/%d/fd/%d", (int)getpid(), template->memory);
}

// In one step, as a process may just be opening it: a predecessor's gives way to ours.
void fl_template_link(struct fl_template *template)
{
    char path[PATH_MAX];
    char new[PATH_MAX];
    char target[64];
    if (!fl_template_sealed(template) || !(template->state->flags & FL_TEMPLATE_PINNED) ||
        !fl_template_path(template, ".mem", path) || !fl_template_path(template, ".mem.new", new))
        return;
    link_target(template, target);
    unlink(new);
    template->linked = symlink(target, new) == 0 && rename(new, path) == 0;
    if (template->linked)
        return;
    if (template->error == -errno) // said already: it is tried again and again
        return;
    template->error = -errno;
    fl_log(FL_LOG_ERROR, "event=template_failed image=%s path=%s reason=\"%s\"",
           template->state->image, path, strerror(-template->error));
}

// One that leads somewhere may be another server's.
void fl_template_link_look(struct fl_template *template)
{
    char path[PATH_MAX];
    if (fl_template_path(template, ".mem", path) && access(path, F_OK) != 0 && errno == ENOENT)
        fl_template_link(template);
}

void fl_template_unlink(struct fl_template *template)
{
    char path[PATH_MAX];
    char target[64];
    char there[64];
    if (!template->linked || !fl_template_path(template, ".mem", path))
        return;
    link_target(template, target);
    ssize_t length = readlink(path, there, sizeof(there) - 1);
    if (length == (ssize_t)strlen(target) && memcmp(there, target, (size_t)length) == 0)
        unlink(path);
    template->linked = false;
}
