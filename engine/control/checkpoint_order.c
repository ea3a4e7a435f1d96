// SPDX-License-Identifier: Apache-2.0
#include "engine/control/checkpoint_order.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "engine/link/channel.h"
#include "snapshot/read.h"

enum { PAUSE_MS_MAX = 10 * 60 * 1000, TIMEOUT_MS_MAX = 60 * 60 * 1000 };

// As it is in the body.
struct wish {
    json_int_t vm;  // or
    json_int_t pid; // with `base`; the other one is -1
    const char *name;
    const char *vmstate;
    const char *qmp;
    const char *base;
    json_t *drives;
    json_t *labels;
    int keep_armed;
    int full;
    int while_paused;
    int replace;
    int live;
    int leave_paused;
    json_int_t timeout_ms;
    json_int_t max_pause_ms;
};

static int refuse(struct fl_error *ret_error, const char *sentence)
{
    return fl_fail_plain(ret_error, -EINVAL, "%s", sentence);
}

static int unpack(json_t *body, struct wish *wish, struct fl_error *ret_error)
{
    if (json_unpack(body,
                    "{s?:I, s?:I, s:s, s?:s, s?:s, s?:s, s?:o, s?:o, s?:b, s?:b, s?:b, s?:b, s?:b, "
                    "s?:b, s?:I, s?:I !}",
                    "vm", &wish->vm, "pid", &wish->pid, "name", &wish->name, "vmstate",
                    &wish->vmstate, "qmp", &wish->qmp, "base", &wish->base, "drives", &wish->drives,
                    "labels", &wish->labels, "keep_armed", &wish->keep_armed, "full", &wish->full,
                    "while_paused", &wish->while_paused, "replace", &wish->replace, "live",
                    &wish->live, "leave_paused", &wish->leave_paused, "timeout_ms",
                    &wish->timeout_ms, "max_pause_ms", &wish->max_pause_ms) == 0)
        return 0;
    return refuse(ret_error,
                  "the body must be {\"vm\": N, \"name\": NAME} with, if they are wanted, vmstate, "
                  "drives, labels, keep_armed, full, while_paused, replace, live, leave_paused, "
                  "qmp, base, timeout_ms and max_pause_ms (docs/control-api.md)");
}

bool fl_checkpoint_of_read(json_int_t vm, json_int_t pid, struct fl_checkpoint_of *ret_of)
{
    if ((vm < 0) == (pid < 0))
        return false;
    *ret_of = (struct fl_checkpoint_of){.process = vm < 0, .number = (uint64_t)(vm < 0 ? pid : vm)};
    return true;
}

const char *fl_checkpoint_of_text(const struct fl_checkpoint_of *of,
                                  char text[FL_CHECKPOINT_OF_TEXT])
{
    snprintf(text, FL_CHECKPOINT_OF_TEXT, "%s %" PRIu64, of->process ? "process" : "VM",
             of->number);
    return text;
}

// What excludes what, as the command has it (tools/verbs/checkpoint_options.c), with its reasons.
static int check_together(const struct wish *wish, struct fl_error *ret_error)
{
    if (wish->while_paused && wish->keep_armed)
        return refuse(ret_error, "\"while_paused\" tracks no writes: it cannot be used with "
                                 "\"keep_armed\"");
    if (wish->base && (wish->keep_armed || wish->full || wish->while_paused))
        return refuse(ret_error, "\"base\" cannot be used with \"keep_armed\", \"full\" or "
                                 "\"while_paused\": no engine tracks what that VM writes, and all "
                                 "of it is copied in the pause");
    if (wish->base && wish->qmp)
        return refuse(ret_error, "\"qmp\" cannot be used with \"base\": that is for the private "
                                 "mapping of a Firecracker");
    if (wish->qmp && wish->vmstate)
        return refuse(ret_error, "\"vmstate\" cannot be used with \"qmp\": QEMU hands its state to "
                                 "the command");
    if (wish->live && wish->replace)
        return refuse(ret_error, "\"live\" cannot be used with \"replace\": its name leads to an "
                                 "image already, and cannot lead to another one yet");
    if (wish->live && (wish->while_paused || wish->base))
        return refuse(ret_error, "\"live\" cannot be used with \"while_paused\" or \"base\": what "
                                 "is copied in the pause is no image before its end");
    return 0;
}

static int check(const struct wish *wish, struct fl_error *ret_error)
{
    struct fl_checkpoint_of of;
    if (!fl_checkpoint_of_read(wish->vm, wish->pid, &of))
        return refuse(ret_error, "the body must have \"vm\", the number of a VM, or with \"base\" "
                                 "\"pid\", that of a process");
    if (of.process != (wish->base != NULL))
        return refuse(ret_error, "\"base\" is of a VM that no server has, whose process \"pid\" "
                                 "names, and only with \"base\"");
    if (of.process && (of.number < 1 || of.number > INT_MAX))
        return refuse(ret_error, "\"pid\" is the number of a process");
    if (wish->base && !fl_name_valid(wish->base))
        return fl_fail_plain(ret_error, -EINVAL, "'%.80s' cannot name an image", wish->base);
    if (!fl_name_valid(wish->name))
        return fl_fail_plain(ret_error, -EINVAL, "'%.80s' cannot name an image", wish->name);
    if (wish->timeout_ms < 1 || wish->timeout_ms > TIMEOUT_MS_MAX)
        return refuse(ret_error, "\"timeout_ms\" is from 1 to 3600000");
    if (wish->max_pause_ms < 1 || wish->max_pause_ms > PAUSE_MS_MAX)
        return refuse(ret_error, "\"max_pause_ms\" is from 1 to 600000");
    if (wish->drives && !json_is_array(wish->drives))
        return refuse(ret_error, "\"drives\" is a list of paths");
    if (wish->labels && !json_is_array(wish->labels))
        return refuse(ret_error, "\"labels\" is a list of KEY=VALUE");
    return check_together(wish, ret_error);
}

// --- the command line ---

struct line {
    struct fl_checkpoint_order *order;
    unsigned count; // of arguments
    int error;      // the first one, of which ret_error speaks
    struct fl_error *ret_error;
};

static void spoil(struct line *line, const char *sentence)
{
    if (!line->error)
        line->error = refuse(line->ret_error, sentence);
}

// A value stands in the argument of its option, so that it can never be an option itself. It must
// not end its line.
__attribute__((format(printf, 2, 3))) static void add(struct line *line, const char *format, ...)
{
    char *end = line->order->arguments + strlen(line->order->arguments);
    size_t room = (size_t)(line->order->arguments + sizeof(line->order->arguments) - end);
    va_list values;
    va_start(values, format);
    int length = vsnprintf(end, room, format, values);
    va_end(values);
    if (length < 0 || (size_t)length + 1 >= room || ++line->count >= FL_COMMAND_ARGS)
        spoil(line, "the order is too long");
    else if (strchr(end, '\n'))
        spoil(line, "no text of the order may have the end of a line in it");
    else
        memcpy(end + length, "\n", 2);
    if (line->error)
        *end = '\0';
}

static void add_flag(struct line *line, int wanted, const char *option)
{
    if (wanted)
        add(line, "%s", option);
}

// The command's directory is the server's, of which a client knows nothing.
static void add_path(struct line *line, const char *option, const char *path)
{
    if (path && path[0] == '/')
        add(line, "%s%s", option, path);
    else
        spoil(line, "\"vmstate\", \"qmp\" and \"drives\" are absolute paths");
}

static void add_drives(struct line *line, json_t *drives)
{
    size_t i;
    json_t *drive;
    json_array_foreach(drives, i, drive) add_path(line, "--drive=", json_string_value(drive));
}

// KEY=VALUE.
static bool is_label(const char *text)
{
    char key[FL_NAME_MAX + 1];
    size_t length = text ? strcspn(text, "=") : 0;
    if (!text || length > FL_NAME_MAX || !text[length])
        return false;
    snprintf(key, sizeof(key), "%.*s", (int)length, text);
    for (const char *at = text + length; *at; at++) {
        if (*at < ' ' || *at > '~')
            return false;
    }
    return fl_name_valid(key);
}

static void add_labels(struct line *line, json_t *labels)
{
    size_t i;
    json_t *label;
    json_array_foreach(labels, i, label)
    {
        const char *text = json_string_value(label);
        if (is_label(text))
            add(line, "--label=%s", text);
        else
            spoil(line, "\"labels\" is a list of KEY=VALUE, with keys of A-Z a-z 0-9 . _ - and "
                        "values of printable ASCII");
    }
}

static void add_all(struct line *line, const struct wish *wish, const char *control)
{
    add(line, "checkpoint");
    if (wish->qmp) { // the command has the API, and its order is taken back as by an orchestrator
        add(line, "--while-heard");
        add_path(line, "--qmp=", wish->qmp);
    } else {
        add(line, "--external");
    }
    add(line, "--json");
    add(line, "--control=%s", control);
    add(line, "--name=%s", wish->name);
    add(line, "--timeout=%" JSON_INTEGER_FORMAT "ms", wish->timeout_ms);
    add(line, "--max-pause=%" JSON_INTEGER_FORMAT "ms", wish->max_pause_ms);
    if (wish->vmstate)
        add_path(line, "--with=vmstate=", wish->vmstate);
    add_drives(line, wish->drives);
    add_labels(line, wish->labels);
    add_flag(line, wish->keep_armed, "--keep-armed");
    add_flag(line, wish->full, "--full");
    add_flag(line, wish->while_paused, "--while-paused");
    add_flag(line, wish->replace, "--replace");
    add_flag(line, wish->live, "--live");
    add_flag(line, wish->leave_paused, "--leave-paused");
    if (wish->base) {
        add(line, "--base=%s", wish->base);
        add(line, "pid:%" JSON_INTEGER_FORMAT, wish->pid);
    } else {
        add(line, "%" JSON_INTEGER_FORMAT, wish->vm);
    }
}

int fl_checkpoint_order_read(json_t *body, const char *control,
                             struct fl_checkpoint_order *ret_order, struct fl_error *ret_error)
{
    // The times are as those of the command.
    struct wish wish = {.vm = -1, .pid = -1, .timeout_ms = 600000, .max_pause_ms = 10000};
    struct line line = {.order = ret_order, .ret_error = ret_error};
    int error = unpack(body, &wish, ret_error);
    if (!error)
        error = check(&wish, ret_error);
    if (error)
        return error;
    *ret_order = (struct fl_checkpoint_order){.name = ""};
    fl_checkpoint_of_read(wish.vm, wish.pid, &ret_order->of);
    snprintf(ret_order->name, sizeof(ret_order->name), "%s", wish.name);
    add_all(&line, &wish, control);
    return line.error;
}
