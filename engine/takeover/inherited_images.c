// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. For each image there is one `struct incoming`: it collects the descriptors
// of the keeper's record (or has a name only), a reader opens it, and from then on it hands the
// image to every VM that waits for it. The control thread owns all of them; while `job` is with a
// reader, the reader alone touches `image`, `error` and `fd`, and its mail (image_opened) brings
// them back.
//
// An incoming image holds one reference of its image (fl_images_put) until it is freed; each VM
// gets one of its own. It lives while it is `wanted` (records may still come that need it), is
// being opened, or VMs wait. A VM that waits is in no worker: it is linked by `in_worker`.
#include "engine/takeover/inherited_images.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <urcu/compiler.h>

#include "engine/accept/attach.h"
#include "engine/accept/image_fit.h"
#include "engine/base/clock.h"
#include "engine/base/close_thread.h"
#include "engine/base/io_pool.h"
#include "engine/base/log.h"
#include "engine/files/files.h"
#include "engine/image/images.h"
#include "engine/link/keeper_link.h"
#include "engine/serve/kill.h"
#include "engine/template/templates.h"
#include "engine/vm/vm.h"
#include "engine/worker/engine.h"
#include "snapshot/read.h"

enum { REASON_BYTES = 192 };
#define SHORT_PAUSE (100 * FL_NS_PER_MS)

// An image on its way in, and the VMs that wait for it.
struct incoming {
    struct cds_list_head link; // of fl_inherited_images.list
    struct fl_inherited_images *inherited;
    uint64_t id; // of its record, 0 if it is opened by name
    char name[FL_IMAGE_NAME_BYTES];
    int *fd; // until it is opened
    uint32_t slots;
    bool opened;
    bool wanted; // by records that may still come
    bool holds;  // the template of its number, which came with it
    struct fl_image *image;
    int error;
    uint64_t give_up_ns;          // for want of descriptors or memory; 0: not yet
    struct cds_list_head waiting; // VMs, by in_worker
    struct fl_io_job job;
    struct fl_mail mail;
    // Of an orphan's, or NULL:
    void (*answer)(void *arg, int error, const char *text);
    void *arg;
    uint64_t file_end;   // of its layout
    uint32_t page_shift; //
};

void fl_inherited_images_init(struct fl_inherited_images *inherited, struct fl_engine *engine)
{
    inherited->engine = engine;
    CDS_INIT_LIST_HEAD(&inherited->list);
}

static void close_files(struct incoming *incoming)
{
    for (uint32_t i = 0; incoming->fd && i < incoming->slots; i++)
        fl_close_later(incoming->fd[i]);
    free(incoming->fd);
    incoming->fd = NULL;
}

// The image's record may go with it, if none uses that any more.
static void free_incoming(struct incoming *incoming)
{
    cds_list_del(&incoming->link);
    if (incoming->holds) // one that was made since is not ours to let go
        fl_templates_settle(incoming->inherited->engine->templates, incoming->id);
    if (incoming->image)
        fl_images_put(incoming->inherited->engine->images, incoming->image);
    close_files(incoming);
    free(incoming);
}

// At the server's end: the keeper's records stay.
static void forget_incoming(struct incoming *incoming)
{
    cds_list_del(&incoming->link);
    if (incoming->answer && !incoming->opened)
        incoming->answer(incoming->arg, -ECANCELED, "the engine ends");
    fl_image_unref(incoming->image);
    close_files(incoming);
    free(incoming);
}

static struct incoming *new_incoming(struct fl_inherited_images *inherited, uint64_t id,
                                     const char *name)
{
    struct incoming *incoming = calloc(1, sizeof(*incoming));
    if (!incoming)
        return NULL;
    incoming->inherited = inherited;
    incoming->id = id;
    snprintf(incoming->name, sizeof(incoming->name), "%s", name);
    CDS_INIT_LIST_HEAD(&incoming->waiting);
    cds_list_add_tail(&incoming->link, &inherited->list);
    return incoming;
}

static struct incoming *find_incoming(struct fl_inherited_images *inherited, uint64_t id,
                                      const char *name)
{
    struct incoming *incoming;
    cds_list_for_each_entry(incoming, &inherited->list, link)
    {
        if (id ? incoming->id == id : !incoming->answer && strcmp(incoming->name, name) == 0)
            return incoming;
    }
    return NULL;
}

// Without its bytes nothing can be served: its faults are poisoned, or it is killed, as its policy
// says.
static void without_image(struct fl_engine *engine, struct fl_vm *vm, int error)
{
    char reason[REASON_BYTES];
    snprintf(reason, sizeof(reason), "its image cannot be opened: %s", fl_image_strerror(error));
    if (vm->on_error == FL_ON_ERROR_KILL)
        fl_kill(&engine->killer, vm, reason);
    else
        fl_log(FL_LOG_ERROR, "event=image_lost vm=%" PRIu64 " image=%s reason=\"%s\"", vm->id,
               vm->state->image, reason);
}

static void serve_waiting(struct incoming *incoming)
{
    struct fl_engine *engine = incoming->inherited->engine;
    while (!cds_list_empty(&incoming->waiting)) {
        struct fl_vm *vm = cds_list_first_entry(&incoming->waiting, struct fl_vm, in_worker);
        cds_list_del(&vm->in_worker);
        if (incoming->error)
            without_image(engine, vm, incoming->error);
        fl_attach_adopted(engine, vm,
                          incoming->image ? fl_images_use(engine->images, incoming->image) : NULL);
    }
}

// The regions of an orphan are the word of another process.
static bool holds_all(const struct incoming *incoming)
{
    return incoming->file_end <= fl_image_fit_room(incoming->image, incoming->page_shift);
}

static void image_opened(void *control, struct fl_mail *mail)
{
    (void)control;
    struct incoming *incoming = caa_container_of(mail, struct incoming, mail);
    incoming->opened = true;
    if (incoming->answer) {
        if (!incoming->error && !holds_all(incoming))
            incoming->error = -ERANGE;
        incoming->answer(incoming->arg, incoming->error,
                         incoming->error == -ERANGE ? "its regions do not fit the image"
                         : incoming->error          ? fl_image_strerror(incoming->error)
                                                    : "");
        if (incoming->error) { // the client that asked still has the VM
            while (!cds_list_empty(&incoming->waiting)) {
                struct fl_vm *vm =
                    cds_list_first_entry(&incoming->waiting, struct fl_vm, in_worker);
                cds_list_del(&vm->in_worker);
                fl_attach_forget(incoming->inherited->engine, vm);
            }
        }
    }
    fl_templates_image_opened(incoming->inherited->engine->templates, incoming->id,
                              incoming->image);
    if (incoming->id)
        fl_files_image_opened(incoming->inherited->engine->files, incoming->id, incoming->image);
    serve_waiting(incoming);
    if (!incoming->wanted)
        free_incoming(incoming);
}

static int open_once(struct incoming *incoming)
{
    struct fl_images *images = incoming->inherited->engine->images;
    if (incoming->id)
        return fl_images_get_files(images, incoming->id, incoming->fd, incoming->slots,
                                   &incoming->image);
    return fl_images_get(images, incoming->name, &incoming->image);
}

// Descriptors or memory that we are short of may be there in a while, and its VMs wait for that as
// for a disk.
static bool is_short(struct incoming *incoming)
{
    uint64_t now = fl_now();
    int error = incoming->error;
    if (incoming->answer || (error != -EMFILE && error != -ENFILE && error != -ENOMEM))
        return false;
    if (!incoming->give_up_ns)
        incoming->give_up_ns =
            now + incoming->inherited->engine->options.read_timeout_ms * FL_NS_PER_MS;
    return now < incoming->give_up_ns;
}

// Reader thread. A disk that fails for a moment must not cost the VMs their lives.
static uint64_t open_image(struct fl_io_job *job)
{
    static const int pause_ms[] = {2, 10, 50, 250};
    struct incoming *incoming = caa_container_of(job, struct incoming, job);
    incoming->error = open_once(incoming);
    for (unsigned i = 0; incoming->error && !incoming->answer && i < 4; i++) {
        poll(NULL, 0, pause_ms[i]);
        incoming->error = open_once(incoming);
    }
    if (is_short(incoming))
        return fl_now() + SHORT_PAUSE;
    close_files(incoming);
    incoming->mail.deliver = image_opened;
    fl_mailbox_post(&incoming->inherited->engine->control, &incoming->mail);
    return 0;
}

static void drop_incoming(struct fl_mail *mail)
{
    forget_incoming(caa_container_of(mail, struct incoming, mail));
}

static void open_later(struct incoming *incoming)
{
    incoming->mail.drop = drop_incoming;
    incoming->job.run = open_image;
    fl_io_pool_submit(incoming->inherited->engine->io_pool, &incoming->job);
}

// The messages of one record follow each other.
void fl_inherited_images_add(struct fl_inherited_images *inherited,
                             const struct fl_message *message, int fds[FL_CHANNEL_FDS])
{
    struct incoming *incoming = find_incoming(inherited, message->id, "");
    if (!incoming) {
        incoming = new_incoming(inherited, message->id, "");
        if (!incoming)
            return; // its VMs find no record, and try by name
        incoming->wanted = true;
        incoming->slots = message->slots;
        incoming->fd = malloc((message->slots ? message->slots : 1) * sizeof(int));
        for (uint32_t i = 0; incoming->fd && i < message->slots; i++)
            incoming->fd[i] = -1;
    }
    if (!incoming->fd)
        return;
    for (uint32_t i = 0; i < FL_CHANNEL_FDS && message->first + i < incoming->slots; i++) {
        incoming->fd[message->first + i] = fds[i];
        fds[i] = -1;
    }
    if (message->first + FL_CHANNEL_FDS >= incoming->slots)
        open_later(incoming);
}

// Its image comes before it.
void fl_inherited_images_add_template(struct fl_inherited_images *inherited,
                                      const struct fl_message *message, int fds[FL_CHANNEL_FDS])
{
    struct fl_templates *templates = inherited->engine->templates;
    struct incoming *incoming = find_incoming(inherited, message->id, "");
    if (!templates || !incoming) {
        fl_keeper_link_drop(inherited->engine->keeper_link, FL_RECORD_TEMPLATE, message->id);
        return;
    }
    incoming->holds = fl_templates_adopt(templates, message->id, fds);
    if (incoming->opened)
        fl_templates_image_opened(templates, message->id, incoming->image);
}

void fl_inherited_images_wait(struct fl_inherited_images *inherited, struct fl_vm *vm)
{
    const char *name = vm->state->image;
    struct incoming *incoming = NULL;
    if (vm->state->image_record)
        incoming = find_incoming(inherited, vm->state->image_record, name);
    if (!incoming) // of its name there may still be one
        incoming = find_incoming(inherited, 0, name);
    if (!incoming) {
        incoming = new_incoming(inherited, 0, name);
        if (!incoming) {
            without_image(inherited->engine, vm, -ENOMEM);
            fl_attach_adopted(inherited->engine, vm, NULL);
            return;
        }
        open_later(incoming);
    }
    cds_list_add_tail(&vm->in_worker, &incoming->waiting);
    if (incoming->opened)
        serve_waiting(incoming);
}

static struct incoming *new_orphans(struct fl_inherited_images *inherited, const char *image,
                                    const struct fl_layout *layout,
                                    void (*answer)(void *arg, int error, const char *text),
                                    void *arg)
{
    struct incoming *incoming = new_incoming(inherited, 0, image);
    if (!incoming)
        return NULL;
    incoming->answer = answer;
    incoming->arg = arg;
    incoming->file_end = fl_layout_file_end(layout);
    incoming->page_shift = layout->page_shift;
    return incoming;
}

int fl_inherited_images_orphan(struct fl_inherited_images *inherited, struct fl_vm *vm,
                               void (*answer)(void *arg, int error, const char *text), void *arg)
{
    struct incoming *incoming =
        new_orphans(inherited, vm->state->image, &vm->state->layout, answer, arg);
    if (!incoming)
        return -ENOMEM;
    cds_list_add_tail(&vm->in_worker, &incoming->waiting);
    open_later(incoming);
    return 0;
}

int fl_inherited_images_check(struct fl_inherited_images *inherited, const char *image,
                              const struct fl_layout *layout,
                              void (*answer)(void *arg, int error, const char *text), void *arg)
{
    struct incoming *incoming = new_orphans(inherited, image, layout, answer, arg);
    if (!incoming)
        return -ENOMEM;
    open_later(incoming);
    return 0;
}

void fl_inherited_images_end(struct fl_inherited_images *inherited)
{
    struct incoming *incoming;
    struct incoming *next;
    cds_list_for_each_entry_safe(incoming, next, &inherited->list, link)
    {
        incoming->wanted = false;
        if (incoming->opened)
            free_incoming(incoming);
    }
}

// What a reader thread has comes back by mail, or is dropped with it.
void fl_inherited_images_stop(struct fl_inherited_images *inherited)
{
    struct incoming *incoming;
    struct incoming *next;
    cds_list_for_each_entry_safe(incoming, next, &inherited->list, link)
    {
        if (incoming->opened || !incoming->job.run)
            forget_incoming(incoming);
    }
}
