// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. A checkpoint is a capture by the engine (engine/link/channel.h) that becomes
// an image. All that can be refused is refused before the VM is paused. The pause has four steps:
// the VM is paused, its state is written, the engine makes certain what the image will be, the VM
// goes on. Then the pages are packed as they are copied, and the image appears when the engine says
// that all of them are. Whatever fails, the VM goes on first; then the connection to the engine is
// closed, by which the capture is undone.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/link/channel.h"
#include "tools/verbs/checkpoint_steps.h"

enum { TICK_MS = 100, COMMIT_MS = 10000, GIVES_WAY_MS = 2000 };

// --- waiting ---

static bool pack_has_ended(const struct run *run)
{
    struct pollfd poll_fd = {.fd = run->pack.ended, .events = POLLIN};
    return run->pack.running && poll(&poll_fd, 1, 0) == 1;
}

// True: the user has interrupted it.
static bool draw_bar(struct run *run)
{
    uint64_t bytes = run->line.image_pages * FL_PAGE_SIZE;
    return run->bar.fn(run->bar.arg, atomic_load(&run->pack.bytes_done), bytes ? bytes : 1) != 0;
}

static int check_run(struct run *run, const char *what, struct fl_error *ret_error)
{
    uint64_t now = fl_now();
    bool stopped = draw_bar(run);
    if (capture_line_failed(&run->line))
        return fl_fail_plain(ret_error, -ECANCELED, "the capture of VM %llu failed: %s",
                             (unsigned long long)run->result->vm.id, run->line.failure.text);
    // It ends by itself only if it fails, as it may not publish yet.
    if (pack_has_ended(run) && !atomic_load(&run->pack.allowed)) {
        int error = capture_pack_join(&run->pack, ret_error);
        return error ? error : fl_fail_plain(ret_error, -EPROTO, "the image appeared too early");
    }
    if (checkpoint_is_aborted(run))
        return fl_fail_plain(ret_error, -ECANCELED, "the orchestrator has aborted the checkpoint");
    if (checkpoint_is_unheard(run->order))
        return fl_fail_plain(ret_error, -ECANCELED, "the orchestrator has gone");
    if (stopped)
        return fl_fail_plain(ret_error, -ECANCELED, "interrupted");
    if (now >= run->deadline)
        return fl_fail_plain(ret_error, -ETIMEDOUT, "%s in time (--timeout, --max-pause)", what);
    return 0;
}

int run_check(struct run *run, const char *what, struct fl_error *ret_error)
{
    if (run->line.channel >= 0)
        capture_line_hear(&run->line);
    return check_run(run, what, ret_error);
}

static void wait_for_news(struct run *run)
{
    int tick = offered_turn(run, TICK_MS);
    bool to_be_told = run->pack.running && run->offered_at == 0;
    // What nobody reads now is not waited for: it would stay, and this would never sleep.
    bool hears = !run->pack.running || !atomic_load(&run->pack.allowed);
    bool creates = run->creation.exchange != NULL;
    bool ordered = checkpoint_has_orchestrator(run->order) && !atomic_load(&run->pack.cancelled);
    struct pollfd all[] = {
        {.fd = hears ? run->line.channel : -1, .events = POLLIN},
        {.fd = creates ? run->meeting.inotify : -1, .events = POLLIN},
        {.fd = creates ? http_descriptor(run->creation.exchange) : -1, .events = POLLIN},
        {.fd = run->pack.running ? run->pack.ended : -1, .events = POLLIN},
        {.fd = to_be_told ? run->pack.told : -1, .events = POLLIN},
        {.fd = ordered && !run->orchestrator.over ? STDIN_FILENO : -1, .events = POLLIN},
        {.fd = ordered ? STDOUT_FILENO : -1}, // its end alone, and once
    };
    poll(all, sizeof(all) / sizeof(all[0]), tick);
}

int run_wait(struct run *run, bool (*reached)(struct run *run), const char *what,
             struct fl_error *ret_error)
{
    for (;;) {
        int error = run_check(run, what, ret_error);
        if (error)
            return error;
        if (reached(run))
            return 0;
        wait_for_news(run);
    }
}

void run_pause_begins(struct run *run)
{
    run->paused_at = fl_now();
    run->deadline = run->paused_at + run->order->pause_ms * FL_NS_PER_MS;
}

// --- before the capture ---

static int check_name(struct run *run, struct fl_error *ret_error)
{
    struct fl_image_info info;
    const struct checkpoint_order *order = run->order;
    int found = fl_store_image_info(run->store, order->name, &info, NULL);
    if (found == -ENOENT || order->replace)
        return 0;
    return fl_fail_plain(ret_error, -EEXIST,
                         "the store has an image '%s' already; --replace replaces it", order->name);
}

// A store that cannot be written to is found out when the VM still runs.
static int check_writable(const char *dir, struct fl_error *ret_error)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/images", dir);
    if (faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) < 0)
        return fl_fail(ret_error, -errno, "the store %s cannot be written to", dir);
    return 0;
}

int checkpoint_no_store(const struct checkpoint_order *order, struct fl_error *ret_error)
{
    return fl_fail_plain(ret_error, -ENOENT, "the server at %s has no store: --store must name one",
                         order->control);
}

static int open_store(struct run *run, struct fl_error *ret_error)
{
    const char *dir = run->order->store ? run->order->store : run->result->vm.store;
    if (!dir)
        return checkpoint_no_store(run->order, ret_error);
    int error = fl_store_open(dir, false, &run->store, ret_error);
    if (!error)
        error = check_writable(dir, ret_error);
    if (!error)
        error = check_name(run, ret_error);
    return error;
}

// What is not copied is as in the parent: so the store must have that.
static int check_parent(struct run *run, struct fl_error *ret_error)
{
    struct fl_image_info info;
    const struct capture_line *line = &run->line;
    if (!line->parent[0])
        return 0;
    int error = fl_store_image_info(run->store, line->parent, &info, ret_error);
    if (error)
        return error;
    if (memcmp(info.content_id, line->parent_content_id, sizeof(info.content_id)) != 0)
        return fl_fail_plain(ret_error, -ESTALE,
                             "VM %llu came from an image '%s' that the store has no more: another "
                             "one has its name now",
                             (unsigned long long)run->result->vm.id, line->parent);
    snprintf(run->result->parent, sizeof(run->result->parent), "%s", line->parent);
    return 0;
}

// --- the steps ---

static bool is_ready(struct run *run)
{
    return capture_line_is(&run->line, FL_CAPTURE_READY);
}

static bool is_frozen(struct run *run)
{
    return capture_line_is(&run->line, FL_CAPTURE_FROZEN);
}

static bool is_copied(struct run *run)
{
    if (fl_now() > run->gives_way_until)
        capture_pack_go_ahead(&run->pack);
    return capture_line_is(&run->line, FL_CAPTURE_COPIED);
}

static int begin_capture(struct run *run, struct fl_error *ret_error)
{
    const struct checkpoint_order *order = run->order;
    uint64_t flags = (order->full ? FL_CAPTURE_FULL : 0) |
                     (order->keep_armed ? FL_CAPTURE_KEEP_ARMED : 0) |
                     (order->while_paused ? FL_CAPTURE_WHILE_PAUSED : 0);
    int error = capture_line_open(order->control, run->result->vm.id, flags, &run->line, ret_error);
    if (!error)
        error = check_parent(run, ret_error);
    if (error)
        return error;
    run->result->pages = run->line.image_pages;
    checkpoint_say(order, "begun");
    error = run_wait(run, is_ready, "the VM's memory was not write-protected", ret_error);
    if (!error)
        checkpoint_say(order, "ready");
    return error;
}

// The user's own of the same key is what the user knows better.
void run_add_own_label(struct run *run)
{
    struct about_labels *labels = &run->order->labels;
    if (!run->result->label[0] || labels->count == ABOUT_LABELS_MAX)
        return;
    for (size_t i = 0; i < labels->count; i++) {
        if (fl_label_compare(labels->labels[i], run->result->label) == 0)
            return;
    }
    labels->labels[labels->count++] = run->result->label;
}

static int start_pack(struct run *run, struct fl_companion_file *with, struct fl_error *ret_error)
{
    run_add_own_label(run);
    *with = (struct fl_companion_file){.name = CHECKPOINT_VMSTATE, .path = run->vmstate};
    struct fl_pack_options options = {
        .name = run->order->name,
        .offer = run->result->offer,
        .replace = run->order->replace,
        .with = with,
        .with_count = run->vmstate[0] ? 1 : 0,
        .labels = run->order->labels.labels,
        .labels_count = run->order->labels.count,
    };
    int error =
        capture_pack_start(&run->pack, run->store, &run->line, &options, !run->order->while_paused);
    return error ? fl_fail(ret_error, error, "the packing cannot be started") : 0;
}

// From the pause to the VM's going on.
static int freeze(struct run *run, const struct pauser *pauser, struct fl_companion_file *with,
                  struct fl_error *ret_error)
{
    int error = drives_flush(&run->order->drives, ret_error);
    if (!error && !run->order->while_paused) // what packs in such a pause would inherit it
        hurry_begin(&run->hurry);
    if (!error)
        error = pauser->stop(run, ret_error);
    // What is copied in the pause is more than the engine copies ahead of the packing.
    if (!error && run->order->while_paused)
        error = start_pack(run, with, ret_error);
    if (!error && capture_line_freeze(&run->line) != 0)
        error = check_run(run, "", ret_error);
    if (!error)
        error = run_wait(run, is_frozen, "the VM's memory was not write-protected", ret_error);
    if (!error)
        error = drives_clone(&run->order->drives, ret_error);
    if (!error)
        error = pauser->go_on(run, ret_error);
    return error;
}

static int pack(struct run *run, struct fl_error *ret_error)
{
    run->deadline = run->begun + run->order->timeout_ms * FL_NS_PER_MS;
    // Others wait for the image, or no guest runs that would.
    bool at_once = run->order->live || run->order->leave_paused;
    run->gives_way_until = at_once ? 0 : fl_now() + GIVES_WAY_MS * FL_NS_PER_MS;
    int error = run_wait(run, is_copied, "the VM's memory was not copied", ret_error);
    if (!error)
        error = drives_keep(&run->order->drives, ret_error);
    if (error)
        return error;
    checkpoint_say(run->order, "copied");
    capture_pack_allow(&run->pack);
    while (!pack_has_ended(run)) {
        capture_pack_go_ahead(&run->pack);
        if (draw_bar(run) || checkpoint_is_aborted(run) || checkpoint_is_unheard(run->order))
            capture_pack_cancel(&run->pack);
        wait_for_news(run);
    }
    return capture_pack_join(&run->pack, ret_error);
}

static void commit(struct run *run)
{
    struct checkpoint_result *result = run->result;
    const struct fl_capture_board *board = run->line.board;
    result->pack = run->pack.result;
    result->by_fault = atomic_load(&board->by_fault);
    result->by_sweep = atomic_load(&board->by_sweep);
    result->write_faults = atomic_load(&board->write_faults);
    result->freeze_ms = (double)atomic_load(&board->freeze_ns) / (double)FL_NS_PER_MS;
    result->copy_ms = (double)atomic_load(&board->copy_ns) / (double)FL_NS_PER_MS;
    result->seconds = (double)(fl_now() - run->begun) / (double)FL_NS_PER_S;
    // Without it the next checkpoint of this VM copies more than it must: that is all.
    uint64_t end = fl_now() + COMMIT_MS * FL_NS_PER_MS;
    bool keeps = (run->line.granted & FL_CAPTURE_KEEP_ARMED) != 0;
    if (capture_line_commit(&run->line, run->order->name, result->pack.content_id) != 0)
        return;
    while (keeps && fl_now() < end && !capture_line_is(&run->line, FL_CAPTURE_KEPT) &&
           !capture_line_failed(&run->line)) {
        wait_for_news(run);
        capture_line_hear(&run->line);
    }
    result->kept_armed = keeps && capture_line_is(&run->line, FL_CAPTURE_KEPT);
}

void run_say_left_paused(struct fl_error *error)
{
    size_t used = strlen(error->text);
    snprintf(error->text + used, sizeof(error->text) - used,
             "; the VM is still paused, as --leave-paused says");
}

static int run_steps(struct run *run, const struct pauser *pauser, struct fl_error *ret_error)
{
    struct fl_companion_file with;
    int error = begin_capture(run, ret_error);
    if (!error)
        error = freeze(run, pauser, &with, ret_error);
    if (error)
        pauser->undo(run, ret_error);
    hurry_end(&run->hurry);
    if (!error) {
        if (!run->order->while_paused)
            error = start_pack(run, &with, ret_error);
        if (!error)
            error = pack(run, ret_error);
    }
    if (error) { // the first sentence is the reason
        capture_pack_cancel(&run->pack);
        capture_pack_join(&run->pack, NULL);
        drives_undo(&run->order->drives);
        fl_offer_end(run->result->offer);
        run->result->offer = NULL;
        if (run->result->left_paused)
            run_say_left_paused(ret_error);
    } else {
        commit(run);
    }
    return error;
}

// A name that leads to an image already cannot lead to another one yet; and what is copied in the
// pause is no capture before its end.
static int prepare_offer(struct run *run, struct fl_error *ret_error)
{
    const struct offered *offered = &run->order->offered;
    const struct checkpoint_order *order = run->order;
    if (offered->count == 0 || order->replace || order->while_paused || order->base)
        return 0;
    int error =
        fl_offer_new((const char *const *)offered->names, offered->count, &run->result->offer);
    return error ? fl_fail(ret_error, error, "the checkpoint cannot be prepared") : 0;
}

static int prepare(struct run *run, const struct pauser *pauser, struct fl_error *ret_error)
{
    struct drives *drives = &run->order->drives;
    drives->replace = run->order->replace;
    int error = checkpoint_find_vm(run->order, &run->result->vm, ret_error);
    if (!error)
        error = open_store(run, ret_error);
    if (!error)
        error = prepare_offer(run, ret_error);
    if (!error)
        error = drives_begin(drives, run->order->name, ret_error);
    if (!error)
        error = drives_flush(drives, ret_error);
    if (!error)
        error = pauser->prepare(run, ret_error);
    return error;
}

int checkpoint_run(struct checkpoint_order *order, struct checkpoint_result *ret_result,
                   struct fl_error *ret_error)
{
    const struct pauser *pauser = order->external ? &pauser_external
                                  : order->qmp    ? &pauser_qemu
                                                  : &pauser_firecracker;
    struct run *run = calloc(1, sizeof(*run));
    *ret_result = (struct checkpoint_result){.vmstate = -1};
    if (!run)
        return fl_fail(ret_error, -ENOMEM, "a checkpoint cannot be begun");
    run->order = order;
    run->result = ret_result;
    run->begun = fl_now();
    run->deadline = run->begun + order->timeout_ms * FL_NS_PER_MS;
    run->line = (struct capture_line){.channel = -1, .buffer = -1};
    meeting_init(&run->meeting);
    run->bar = progress_begin(&run->progress, "checkpoint", true);
    // Whoever hears it may go at any time. That must not end it between a drive and its image.
    signal(SIGPIPE, SIG_IGN);
    int error = prepare(run, pauser, ret_error);
    if (!error)
        error = order->base ? checkpoint_file_steps(run, pauser, ret_error)
                            : run_steps(run, pauser, ret_error);
    progress_end(&run->progress);
    capture_line_close(&run->line);
    pauser->end(run);
    fl_store_close(run->store);
    free(run);
    return error;
}

void checkpoint_end(struct checkpoint_order *order, struct checkpoint_result *result)
{
    drives_end(&order->drives);
    if (result->vmstate >= 0)
        close(result->vmstate);
    result->vmstate = -1;
    fl_offer_end(result->offer);
    result->offer = NULL;
    offered_free(&order->offered);
    free(result->vm.store);
    result->vm.store = NULL;
}
