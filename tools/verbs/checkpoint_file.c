// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. A VM that maps its memory file privately has never handed a userfaultfd
// over: nobody sees what it writes, but what it has written is in memory of its own, and the rest
// is the file's. So all that it has written is copied while it is paused (file_copy.h), by this
// command and not by an engine. Pausing, the state and going on are those of any checkpoint.
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/clock.h"
#include "tools/cli/control_client.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/checkpoint_steps.h"
#include "tools/verbs/file_copy.h"

// One of them at a time.
struct file_run {
    struct run *run;
    struct file_memory memory;
    struct file_copy copy;
    struct fl_image_info base;
};

static bool is_given_up(struct run *run)
{
    return progress_interrupted() || checkpoint_is_aborted(run) ||
           checkpoint_is_unheard(run->order);
}

// While it is copied: the pause takes no longer than it may.
static int check_pause(void *arg)
{
    struct run *run = arg;
    if (is_given_up(run))
        return -ECANCELED;
    return fl_now() >= run->deadline ? -ETIMEDOUT : 0;
}

// Whether the file is the template of just that image: then what the guest has not written need not
// be read. No server, or one that knows nothing of it: not known.
static bool is_template(const struct file_run *file)
{
    char id[65];
    long status;
    size_t i;
    const json_t *entry;
    json_t *answer = NULL;
    bool found = false;
    store_format_id(file->base.content_id, id);
    control_try(file->run->order->control, "GET", "/v1/templates", NULL, &status, &answer);
    json_array_foreach(json_object_get(answer, "list"), i, entry)
    {
        struct stat is;
        const char *path = json_string_value(json_object_get(entry, "path"));
        const char *content = json_string_value(json_object_get(entry, "content_id"));
        found = found || (path && content && strcmp(content, id) == 0 && stat(path, &is) == 0 &&
                          is.st_dev == file->memory.status.st_dev &&
                          is.st_ino == file->memory.status.st_ino);
    }
    json_decref(answer);
    return found;
}

static int find_memory(struct file_run *file, struct fl_error *ret_error)
{
    struct run *run = file->run;
    int error = fl_store_image_info(run->store, run->order->base, &file->base, ret_error);
    if (!error)
        error = file_memory_open(run->result->vm.pid, file->base.bytes, &file->memory, ret_error);
    if (!error)
        error = file_copy_begin(&file->memory, &file->copy, ret_error);
    if (error)
        return error;
    file->copy.as_parent = is_template(file);
    file->copy.check = check_pause;
    file->copy.check_arg = run;
    checkpoint_say(run->order, "begun");
    error = file_copy_reserve(&file->copy, ret_error);
    if (!error)
        checkpoint_say(run->order, "ready");
    return error;
}

static int say_stopped(int error, struct fl_error *ret_error)
{
    if (error == -ETIMEDOUT)
        return fl_fail_plain(ret_error, error,
                             "what the guest has written was not copied in time (--max-pause)");
    return fl_fail_plain(ret_error, error, "interrupted");
}

static int copy_in_pause(struct file_run *file, struct fl_error *ret_error)
{
    struct checkpoint_result *result = file->run->result;
    uint64_t begun = fl_now();
    int error = file_memory_look_again(&file->memory, ret_error);
    if (!error)
        error = file_copy_take(&file->copy, ret_error);
    if (file->copy.stopped)
        return say_stopped(file->copy.stopped, ret_error);
    result->freeze_ms = (double)(fl_now() - begun) / (double)FL_NS_PER_MS;
    result->copy_ms = result->freeze_ms;
    result->pages = file->copy.pages;
    result->by_sweep = file->copy.copied;
    return error;
}

static int pause_and_copy(struct file_run *file, const struct pauser *pauser,
                          struct fl_error *ret_error)
{
    struct run *run = file->run;
    int error = drives_flush(&run->order->drives, ret_error);
    if (!error)
        error = pauser->stop(run, ret_error);
    if (!error)
        error = copy_in_pause(file, ret_error);
    if (!error)
        error = drives_clone(&run->order->drives, ret_error);
    if (!error)
        error = pauser->go_on(run, ret_error);
    return error;
}

static int pack_progressed(void *arg, uint64_t done, uint64_t total)
{
    struct run *run = arg;
    return run->bar.fn(run->bar.arg, done, total) || is_given_up(run);
}

static int pack_copy(struct file_run *file, struct fl_error *ret_error)
{
    struct run *run = file->run;
    run_add_own_label(run);
    struct fl_companion_file with = {.name = CHECKPOINT_VMSTATE, .path = run->vmstate};
    struct fl_pack_live *live = file_copy_live(&file->copy);
    struct fl_pack_options options = {
        .name = run->order->name,
        .replace = run->order->replace,
        .live = live,
        .with = &with,
        .with_count = run->vmstate[0] ? 1 : 0,
        .labels = run->order->labels.labels,
        .labels_count = run->order->labels.count,
        .progress = {.fn = pack_progressed, .arg = run},
    };
    live->parent = run->order->base;
    live->parent_content_id = file->base.content_id;
    int error = drives_keep(&run->order->drives, ret_error);
    if (error)
        return error;
    checkpoint_say(run->order, "copied");
    capture_pack_give_way();
    error = fl_store_pack(run->store, &options, &run->result->pack, ret_error);
    if (error && !file_memory_file_is_same(&file->memory))
        return fl_fail_plain(ret_error, -ESTALE,
                             "the memory file of process %d was changed while it was read",
                             (int)run->result->vm.pid);
    return error;
}

int checkpoint_file_steps(struct run *run, const struct pauser *pauser, struct fl_error *ret_error)
{
    struct file_run file = {.run = run};
    file_memory_init(&file.memory);
    file_copy_init(&file.copy);
    int error = find_memory(&file, ret_error);
    if (!error)
        error = pause_and_copy(&file, pauser, ret_error);
    if (error)
        pauser->undo(run, ret_error);
    else
        error = pack_copy(&file, ret_error);
    if (error)
        drives_undo(&run->order->drives);
    if (error && run->result->left_paused)
        run_say_left_paused(ret_error);
    file_copy_end(&file.copy);
    file_memory_close(&file.memory);
    snprintf(run->result->parent, sizeof(run->result->parent), "%s", run->order->base);
    run->result->seconds = (double)(fl_now() - run->begun) / (double)FL_NS_PER_S;
    return error;
}
