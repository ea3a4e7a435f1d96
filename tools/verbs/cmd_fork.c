// SPDX-License-Identifier: Apache-2.0
//
// A checkpoint, and as many images of it as there will be VMs. Each has a name, and so a socket and
// a count of its own in the status; the pages are those of the first, and cost nothing more.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "tools/cli/cli.h"
#include "tools/cli/control_client.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/parse.h"
#include "tools/cli/progress.h"
#include "tools/cli/store_cli.h"
#include "tools/verbs/checkpoint.h"
#include "tools/verbs/verbs.h"

enum { COUNT_MAX = 1024, SUFFIX_BYTES = 16, LOOK_EVERY_MS = 20, SOCKETS_S = 10, FD_PATH = 64 };

struct fork_order {
    struct checkpoint_order checkpoint; // the first member: its options are at its place
    unsigned count;
    char name[FL_NAME_MAX + 1 + SUFFIX_BYTES]; // of the first image
    char prefix[FL_NAME_MAX + 1 + SUFFIX_BYTES];
    bool was_there[COUNT_MAX + 1]; // an image that --replace replaces, by number
};

static const struct verb_argument arguments[] = {{.name = "VM"}, {.name = NULL}};
static const struct cli_option options[] = {
    CLI_COUNT(struct fork_order, count, .name = "count", .value = "N", .low = 1, .high = COUNT_MAX,
              .help = "how many images", .preset = "1"),
    CLI_TEXT(struct fork_order, checkpoint.name, .name = "name", .value = "PREFIX",
             .help = "the images are PREFIX-1 to PREFIX-N",
             .otherwise = "that of the VM's image, and its number"),
    {.group = checkpoint_options, .at = offsetof(struct fork_order, checkpoint)},
    CLI_END,
};

static const char *name_of(const struct fork_order *order, unsigned number,
                           char name[FL_NAME_MAX + 1 + SUFFIX_BYTES])
{
    snprintf(name, FL_NAME_MAX + 1 + SUFFIX_BYTES, "%.*s-%u", FL_NAME_MAX, order->prefix, number);
    return name;
}

// The last name is the longest.
static int check_names(struct fork_order *order)
{
    char last[FL_NAME_MAX + 1 + SUFFIX_BYTES];
    if (!fl_name_valid(name_of(order, order->count, last)))
        return cli_usage("fork", "--name: '%s' cannot name an image", last);
    order->checkpoint.name = name_of(order, 1, order->name);
    int status = checkpoint_check(&order->checkpoint);
    if (status == EXIT_DONE &&
        offered_make(order->prefix, order->count, &order->checkpoint.offered) != 0)
        status = cli_fail("fork", "there is no memory");
    return status;
}

static int name_after_vm(struct fork_order *order)
{
    struct checkpoint_vm vm = {.id = 0};
    struct fl_error error;
    if (checkpoint_find_vm(&order->checkpoint, &vm, &error) != 0)
        return checkpoint_fail(&order->checkpoint, &error);
    snprintf(order->prefix, sizeof(order->prefix), "%s-%llu", vm.image[0] ? vm.image : "vm",
             (unsigned long long)(vm.id ? vm.id : (uint64_t)vm.pid));
    free(vm.store);
    return EXIT_DONE;
}

static int parse_fork(int argc, char **argv, struct fork_order *order)
{
    int status = cli_parse(&verb_fork, order, argc, argv);
    if (status != EXIT_DONE)
        return status;
    if (argc - optind != 1)
        return cli_usage("fork", "exactly one VM is needed");
    order->checkpoint.vm = argv[optind];
    if (order->checkpoint.name)
        snprintf(order->prefix, sizeof(order->prefix), "%s", order->checkpoint.name);
    else
        status = name_after_vm(order);
    return status == EXIT_DONE ? check_names(order) : status;
}

// --- the other images ---

static int all_is_there(void *arg, uint64_t first, uint64_t count)
{
    (void)arg;
    (void)first;
    (void)count;
    return 0;
}

static bool is_ready(void *arg, uint64_t first, uint64_t count)
{
    return all_is_there(arg, first, count) == 0;
}

static enum fl_live_page as_in_parent(void *arg, uint64_t page)
{
    (void)arg;
    (void)page;
    return FL_LIVE_PARENT;
}

static void ignore_consumed(void *arg, uint64_t first, uint64_t count)
{
    (void)arg;
    (void)first;
    (void)count;
}

static int copy_memory(struct fl_store *store, const struct fork_order *order,
                       const struct checkpoint_result *result, const char *name, int empty,
                       struct fl_error *ret_error)
{
    char vmstate[FD_PATH];
    struct fl_pack_result packed;
    struct fl_companion_file with = {.name = CHECKPOINT_VMSTATE, .path = vmstate};
    struct fl_pack_live live = {.buffer_fd = empty,
                                .bytes = result->pages * FL_PAGE_SIZE,
                                .await = all_is_there,
                                .ready = is_ready,
                                .page = as_in_parent,
                                .consumed = ignore_consumed,
                                .parent = order->checkpoint.name,
                                .parent_content_id = result->pack.content_id};
    struct fl_pack_options how = {.name = name,
                                  .replace = order->checkpoint.replace,
                                  .live = &live,
                                  .with = &with,
                                  .with_count = 1,
                                  .labels = order->checkpoint.labels.labels,
                                  .labels_count = order->checkpoint.labels.count};
    snprintf(vmstate, sizeof(vmstate), "/proc/self/fd/%d", result->vmstate);
    return fl_store_pack(store, &how, &packed, ret_error);
}

// Clones the clones that the first image has. They have no names yet.
static int clone_drives(const struct drives *first, const char *name, struct drives *ret_copy,
                        struct fl_error *ret_error)
{
    *ret_copy = (struct drives){.count = first->count, .replace = first->replace};
    for (size_t i = 0; i < first->count; i++)
        ret_copy->all[i].path = first->all[i].path;
    int error = drives_begin(ret_copy, name, ret_error);
    for (size_t i = 0; i < first->count && !error; i++) {
        if (dup3(first->all[i].clone, ret_copy->all[i].source, O_CLOEXEC) < 0)
            error = fl_fail(ret_error, -errno, "the drive %s cannot be cloned", first->all[i].name);
    }
    return error ? error : drives_clone(ret_copy, ret_error);
}

// An image, and then the drives that belong to it. *ret_made: the image is there, also if the
// others are not.
static int copy_one(struct fl_store *store, const struct fork_order *order,
                    const struct checkpoint_result *result, const char *name, int empty,
                    bool *ret_made, struct fl_error *ret_error)
{
    struct drives drives;
    int error = clone_drives(&order->checkpoint.drives, name, &drives, ret_error);
    if (!error)
        error = copy_memory(store, order, result, name, empty, ret_error);
    *ret_made = !error;
    if (!error) {
        fl_offer_withdraw(result->offer, name);
        error = drives_keep(&drives, ret_error);
    }
    if (error)
        drives_undo(&drives);
    drives_end(&drives);
    return error;
}

static void remove_one(struct fl_store *store, struct fork_order *order, unsigned number)
{
    char name[FL_NAME_MAX + 1 + SUFFIX_BYTES];
    struct drives *drives = &order->checkpoint.drives;
    name_of(order, number, name);
    fl_store_rm(store, name, NULL);
    if (number == 1)
        drives_undo(drives);
    for (size_t i = 0; i < drives->count && number > 1; i++) {
        char *path = NULL;
        if (asprintf(&path, "%s.%s", drives->all[i].path, name) >= 0)
            unlink(path);
        free(path);
    }
}

// Those that were made, but for what took the place of another one: whoever has that name in use
// has an image still, and a right one.
static void remove_new(struct fl_store *store, struct fork_order *order, unsigned made,
                       struct fl_error *error)
{
    unsigned replaced = 0;
    for (unsigned i = 1; i <= made; i++) {
        replaced += order->was_there[i];
        if (!order->was_there[i])
            remove_one(store, order, i);
    }
    size_t used = strlen(error->text);
    if (replaced > 0)
        snprintf(error->text + used, sizeof(error->text) - used,
                 "; of the images that were to be replaced %u are the new ones", replaced);
}

// All of them, or none but those that have replaced another one.
static int copy_all(struct fl_store *store, struct fork_order *order,
                    const struct checkpoint_result *result, struct fl_error *ret_error)
{
    char name[FL_NAME_MAX + 1 + SUFFIX_BYTES];
    int error = 0;
    unsigned made = 1;
    int empty = memfd_create("empty", MFD_CLOEXEC);
    if (empty < 0 || ftruncate(empty, (off_t)(result->pages * FL_PAGE_SIZE)) < 0)
        error = fl_fail(ret_error, -errno, "the images cannot be made");
    while (made < order->count && !error) {
        bool is_made = false;
        name_of(order, made + 1, name);
        error = copy_one(store, order, result, name, empty, &is_made, ret_error);
        made += is_made;
        if (!error && progress_interrupted())
            error = fl_fail_plain(ret_error, -ECANCELED, "interrupted");
    }
    if (error)
        remove_new(store, order, made, ret_error);
    if (empty >= 0)
        close(empty);
    return error;
}

// Fails if one of them is there and may not be replaced, before the VM is paused; the first is
// looked for by the checkpoint.
static int check_free(struct fl_store *store, struct fork_order *order, struct fl_error *ret_error)
{
    char name[FL_NAME_MAX + 1 + SUFFIX_BYTES];
    struct fl_image_info info;
    for (unsigned i = 1; i <= order->count; i++) {
        order->was_there[i] =
            fl_store_image_info(store, name_of(order, i, name), &info, NULL) != -ENOENT;
        if (order->was_there[i] && !order->checkpoint.replace)
            return fl_fail_plain(ret_error, -EEXIST,
                                 "the store has an image '%s' already; --replace replaces it",
                                 name);
    }
    return 0;
}

// --- their sockets ---

// The server sees the new images by itself, if it serves this store. Where it does not listen for
// them, the images are there all the same.
static void wait_for_sockets(const struct fork_order *order)
{
    uint64_t end = fl_now() + SOCKETS_S * FL_NS_PER_S;
    const struct offered *offered = &order->checkpoint.offered;
    offered_tell(&order->checkpoint);
    while (!offered_all_told(offered) && fl_now() < end && !progress_interrupted()) {
        poll(NULL, 0, LOOK_EVERY_MS);
        offered_tell(&order->checkpoint);
    }
    if (!offered_all_told(offered))
        cli_warn("fork",
                 "the images are in the store, but the server at %s does not listen for "
                 "all of them: 'faultline listen' makes it",
                 order->checkpoint.control);
}

// --- the verb ---

static int print_fork(const struct fork_order *order, const struct checkpoint_result *result)
{
    char name[FL_NAME_MAX + 1 + SUFFIX_BYTES];
    json_t *names = json_array();
    json_t *object = order->checkpoint.json ? checkpoint_json(&order->checkpoint, result) : NULL;
    for (unsigned i = 1; i <= order->count; i++)
        json_array_append_new(names, json_string(name_of(order, i, name)));
    if (object)
        json_object_set(object, "images", names);
    json_decref(names);
    if (order->checkpoint.json)
        return store_print_json("fork", object);
    for (unsigned i = 0; i < order->count; i++) { // those that no server listens for
        if (!order->checkpoint.offered.told[i])
            checkpoint_say_restorable(&order->checkpoint, order->checkpoint.offered.names[i]);
    }
    return EXIT_DONE;
}

static int run_fork(struct fork_order *order, struct checkpoint_result *result,
                    struct fl_error *ret_error)
{
    struct checkpoint_order *first = &order->checkpoint;
    struct fl_store *store = NULL;
    struct checkpoint_vm vm = {.id = 0};
    int error = checkpoint_find_vm(first, &vm, ret_error);
    if (!error && !first->store)
        first->store = vm.store;
    if (!error && !first->store)
        error = checkpoint_no_store(first, ret_error);
    if (!error)
        error = fl_store_open(first->store, false, &store, ret_error);
    if (!error)
        error = check_free(store, order, ret_error);
    fl_store_close(store); // a process uses one handle of a store at a time
    store = NULL;
    if (!error)
        error = checkpoint_run(first, result, ret_error);
    if (!error)
        error = fl_store_open(first->store, false, &store, ret_error);
    if (!error)
        error = copy_all(store, order, result, ret_error);
    fl_store_close(store);
    if (first->store == vm.store)
        first->store = NULL;
    free(vm.store);
    return error;
}

static int cmd_fork(int argc, char **argv)
{
    struct fork_order order = {.checkpoint = {.verb = "fork"}};
    struct checkpoint_result result = {.vmstate = -1};
    struct fl_error error;
    int status = parse_fork(argc, argv, &order);
    if (status != EXIT_DONE)
        return status;
    if (run_fork(&order, &result, &error) != 0) {
        status = checkpoint_fail(&order.checkpoint, &error);
    } else {
        wait_for_sockets(&order);
        status = print_fork(&order, &result);
    }
    checkpoint_end(&order.checkpoint, &result);
    return status;
}

const struct verb verb_fork = {
    .name = "fork",
    .run = cmd_fork,
    .summary = "make images of a VM that runs, for as many VMs as go on from there",
    .synopsis = {"--count N [--name PREFIX] [OPTION...] VM"},
    .about = "Makes a checkpoint of a VM, as 'faultline checkpoint' does, and gives it N names, "
             "PREFIX-1 to PREFIX-N. The images share all of their pages. Each name is printed as "
             "soon as the server listens for it: N VMs can be restored at once, from the state "
             "that is in each of them as the companion 'vmstate', while the VM is still being "
             "copied. Until the command has ended well they depend on it. The VM itself runs on. "
             "With --drive each image has a clone of the file.",
    .status =
        "0 if all images are in the store; 1 if none is, after a sentence, but for those that "
        "have replaced another one by then.",
    .arguments = arguments,
    .options = options,
};
