// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. Verifying checks each pack's tables, each frame's checksum and each page's
// identity; then each image's map and content id; then each trace. Frames are checked in parallel,
// the rest in the calling thread. Bad frames are reported last, once it is known that an image
// needs them (findings.h).
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/companion.h"
#include "snapshot/findings.h"
#include "snapshot/identity.h"
#include "snapshot/image.h"
#include "snapshot/io.h"
#include "snapshot/offer_head.h"
#include "snapshot/offer_left.h"
#include "snapshot/pack_list.h"
#include "snapshot/pipeline.h"
#include "snapshot/store_dir.h"
#include "snapshot/trace_file.h"
#include "snapshot/trace_store.h"
#include "snapshot/verify_packs.h"

// A thread takes so many frames at a time.
#define STEP 64u

struct worker {
    struct fl_hasher *hasher;
    struct fl_identity identities[FL_FRAME_PAGES_MAX];
    uint8_t pages[FL_FRAME_PAGES_MAX * FL_PAGE_SIZE];
};

struct verify {
    struct fl_store *store;
    const struct fl_verify_options *options;
    struct fl_verify_result result;
    unsigned threads;
    struct worker **workers; // one for each thread
    atomic_uint_fast64_t done;
    uint64_t total;
    pthread_mutex_t lock; // covers result.bad, the callback and findings
    struct fl_findings findings;

    // The pack in work.
    const struct fl_pack *pack;
    uint32_t next_frame;
};

__attribute__((format(printf, 3, 4))) static void report(struct verify *verify, const char *object,
                                                         const char *format, ...)
{
    char problem[200];
    va_list args;
    va_start(args, format);
    vsnprintf(problem, sizeof(problem), format, args);
    va_end(args);
    pthread_mutex_lock(&verify->lock);
    verify->result.bad++;
    if (verify->options->bad)
        verify->options->bad(verify->options->bad_arg, object, problem);
    pthread_mutex_unlock(&verify->lock);
}

static void pack_object(uint64_t id, char object[32])
{
    snprintf(object, 32, "pack %016" PRIx64, id);
}

static int next_step(void *arg, void *item, unsigned thread)
{
    (void)thread;
    struct verify *verify = arg;
    uint32_t *first = item;
    if (verify->next_frame >= fl_pack_frames(verify->pack))
        return 0;
    *first = verify->next_frame;
    verify->next_frame += STEP;
    return 1;
}

// Keeps a bad frame, which is reported once it is known whether an image needs it.
static void note_frame(struct verify *verify, uint32_t frame, int slot, const char *problem)
{
    char where[24] = "";
    struct fl_frame_id id = {fl_pack_id(verify->pack), frame};
    if (slot >= 0)
        snprintf(where, sizeof(where), ", page %d", slot);
    pthread_mutex_lock(&verify->lock);
    int r =
        fl_findings_add(&verify->findings, id, "frame %" PRIu32 "%s: %s", frame, where, problem);
    pthread_mutex_unlock(&verify->lock);
    if (r < 0) { // short of memory: it is not known later which images need this frame
        char object[32];
        pack_object(id.pack, object);
        report(verify, object, "frame %" PRIu32 "%s: %s", frame, where, problem);
    }
}

// An object that cannot be read is reported and is not an error: the rest is checked as well.
static void verify_frame(struct verify *verify, struct worker *worker, uint32_t frame)
{
    struct fl_identity identity;
    uint32_t pages = fl_pack_frame_pages(verify->pack, frame);
    int r = fl_pack_read_frame(verify->pack, frame, worker->pages);
    if (r < 0) {
        note_frame(verify, frame, -1, fl_frame_strerror(r));
        return;
    }
    r = fl_pack_read_identities(verify->pack, frame, 0, pages, worker->identities);
    for (uint32_t slot = 0; r == 0 && slot < pages; slot++) {
        r = fl_hash_page(worker->hasher, worker->pages + (size_t)slot * FL_PAGE_SIZE, &identity);
        if (r == 0 && memcmp(&identity, &worker->identities[slot], sizeof(identity)) != 0)
            note_frame(verify, frame, (int)slot, "SHA-256 is not the recorded one");
    }
    if (r < 0)
        note_frame(verify, frame, -1, fl_frame_strerror(r));
}

static int verify_step(void *arg, void *item, unsigned thread)
{
    struct verify *verify = arg;
    uint32_t first = *(uint32_t *)item;
    uint32_t left = fl_pack_frames(verify->pack) - first;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < (left < STEP ? left : STEP); i++) {
        verify_frame(verify, verify->workers[thread], first + i);
        bytes += fl_pack_frame_stored(verify->pack, first + i);
    }
    atomic_fetch_add(&verify->done, bytes);
    return 0;
}

static uint64_t done(void *arg)
{
    return atomic_load(&((struct verify *)arg)->done);
}

static int verify_frames(struct verify *verify, const struct fl_pack *pack)
{
    static const struct fl_stage stages[] = {{next_step, true}, {verify_step, false}};
    unsigned count = 2 * verify->threads;
    FL_AUTO_FREE uint32_t *firsts = calloc(count, sizeof(*firsts));
    FL_AUTO_FREE void **items = calloc(count, sizeof(*items));
    if (!firsts || !items)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++)
        items[i] = &firsts[i];
    verify->pack = pack;
    verify->next_frame = 0;
    struct fl_pipeline pipeline = {
        .stages = stages,
        .stages_count = 2,
        .items = items,
        .items_count = count,
        .threads = verify->threads,
        .arg = verify,
        .done = done,
        .total = verify->total,
        .progress = &verify->options->progress,
    };
    return fl_pipeline_run(&pipeline);
}

static int verify_pack(struct verify *verify, uint64_t id)
{
    char object[32];
    struct fl_pack *pack;
    pack_object(id, object);
    int r = fl_pack_open(verify->store->reader->registry, id, &pack);
    if (r == -ENOENT) // withdrawn by a pack that failed; an image that needs it is reported
        return 0;
    verify->result.packs++;
    if (r == 0) {
        r = fl_pack_know_all(pack);
        if (r < 0)
            fl_pack_unref(pack);
    }
    if (r < 0) {
        report(verify, object, "its header or frame table %s", fl_frame_strerror(r));
        return 0;
    }
    verify->result.frames += fl_pack_frames(pack);
    verify->result.pages += fl_pack_pages(pack);
    r = fl_pack_check_identities(pack);
    if (r < 0)
        report(verify, object, "its table of identities %s", fl_frame_strerror(r));
    r = verify_frames(verify, pack);
    fl_pack_unref(pack);
    return r;
}

static int compute_content(const struct fl_image *image, struct worker *worker,
                           struct fl_identity *ret_content)
{
    int r = fl_hash_start(worker->hasher);
    for (uint64_t page = 0; r == 0 && page < image->header.pages;) {
        struct fl_run run = fl_image_run(image, page, FL_FRAME_PAGES_MAX);
        r = fl_image_run_identities(image, page, &run, worker->identities);
        if (r == 0)
            r = fl_hash_update(worker->hasher, worker->identities,
                               run.pages * sizeof(worker->identities[0]));
        page += run.pages;
    }
    return r < 0 ? r : fl_hash_finish(worker->hasher, ret_content);
}

static void report_bad_pages(struct verify *verify, const char *object,
                             const struct fl_image *image)
{
    uint64_t pack = 0;
    uint64_t pages = fl_bad_frames_pages(&verify->findings.bad, image, &pack);
    if (pages > 0)
        report(verify, object,
               "%" PRIu64 " of its pages are in bad frames, the first in pack %016" PRIx64, pages,
               pack);
}

static void verify_companions(struct verify *verify, const char *object,
                              const struct fl_image *image)
{
    struct fl_image_tail tail = {.about = NULL};
    struct fl_image_about about = {.companions = NULL};
    int r = fl_image_tail_read(image, &tail);
    r = r < 0 ? r : fl_image_tail_tell(&tail, &about);
    if (r < 0)
        report(verify, object, "its companions and labels: %s", fl_frame_strerror(r));
    for (uint32_t i = 0; r == 0 && i < about.companions_count; i++) {
        uint64_t bad = fl_companion_bad_pages(image, &tail, i, &verify->findings.bad);
        int wrong = fl_companion_check(image, &tail, i);
        verify->result.companions++;
        if (bad > 0)
            report(verify, object, "%" PRIu64 " pages of its companion '%s' are in bad frames", bad,
                   about.companions[i].name);
        if (wrong < 0)
            report(verify, object, "its companion '%s': %s", about.companions[i].name,
                   fl_frame_strerror(wrong));
    }
    fl_image_about_free(&about);
    fl_image_tail_free(&tail);
}

// NULL: it is not.
static const char *why_on_offer(const struct fl_store *store, const char *name)
{
    char file[FL_OFFER_NAME_BYTES];
    int images_fd = store->reader->images_fd;
    if (fl_offer_file_name(name, file) != 0 ||
        faccessat(images_fd, file, F_OK, AT_SYMLINK_NOFOLLOW) != 0)
        return NULL;
    return fl_offer_is_left(images_fd, file)
               ? "was left by a process that was killed before it was packed; gc removes it"
               : "is on offer, and cannot be verified before it is published";
}

static void verify_image(struct verify *verify, const char *name)
{
    char object[FL_NAME_MAX + 16];
    struct fl_image *image;
    struct fl_identity content;
    struct fl_blame blame;
    snprintf(object, sizeof(object), "image %s", name);
    int r = fl_image_open(verify->store->reader, name, &image);
    const char *offer = r == -ENOENT ? why_on_offer(verify->store, name) : NULL;
    if (offer) // it may have been published meanwhile
        r = fl_image_open(verify->store->reader, name, &image);
    if (r == -ENOENT && !verify->options->names) // removed since it was listed
        return;
    verify->result.images++;
    if (r < 0) {
        report(verify, object, "%s",
               r == -ENOENT && offer ? offer : fl_image_blame(verify->store, name, r, &blame));
        return;
    }
    report_bad_pages(verify, object, image);
    r = compute_content(image, verify->workers[0], &content);
    if (r < 0)
        report(verify, object, "its pages' identities: %s", fl_frame_strerror(r));
    else if (memcmp(&content, &image->header.content_id, sizeof(content)) != 0)
        report(verify, object, "its content id is not that of its pages");
    verify_companions(verify, object, image);
    fl_image_unref(image);
}

// A trace without an image is checked as well; gc removes it.
static int verify_trace(void *arg, const char *name)
{
    struct verify *verify = arg;
    char object[FL_NAME_MAX + 16];
    struct fl_trace_file trace;
    snprintf(object, sizeof(object), "trace %s", name);
    int r = fl_trace_file_load(verify->store->reader->dir_fd, name, &trace);
    if (r == -ENOENT || r == -EINVAL) // none, or no such name: verify_image has told
        return 0;
    verify->result.traces++;
    if (r < 0)
        report(verify, object, "%s", fl_trace_strerror(r));
    else
        fl_trace_file_free(&trace);
    return 0;
}

static void sum_stored(struct verify *verify, const struct fl_pack_ids *ids)
{
    struct fl_pack *pack;
    for (size_t i = 0; i < ids->count; i++) {
        if (fl_pack_open(verify->store->reader->registry, ids->ids[i], &pack) < 0)
            continue;
        verify->total += fl_pack_file_bytes(pack);
        fl_pack_unref(pack);
    }
}

static void report_frame(void *arg, const struct fl_finding *finding)
{
    char object[32];
    pack_object(finding->id.pack, object);
    report(arg, object, "%s", finding->problem);
}

static int verify_packs(struct verify *verify)
{
    bool list_written = false;
    struct fl_pack_ids ids = {.ids = NULL};
    int r = fl_verify_choose_packs(verify->store, verify->options, &ids);
    if (r == 0)
        sum_stored(verify, &ids);
    for (size_t i = 0; r == 0 && i < ids.count; i++)
        r = verify_pack(verify, ids.ids[i]);
    if (r == 0)
        r = fl_findings_settle(&verify->findings, verify->store, ids.ids, ids.count, report_frame,
                               verify, &verify->result.unneeded_frames, &list_written);
    verify->result.list_not_written = !list_written;
    free(ids.ids);
    return r;
}

static void verify_named(struct verify *verify)
{
    for (size_t i = 0; i < verify->options->names_count; i++) {
        verify_image(verify, verify->options->names[i]);
        verify_trace(verify, verify->options->names[i]);
    }
}

static int verify_images(struct verify *verify, struct fl_error *ret_error)
{
    char **names;
    size_t count;
    if (verify->options->names) {
        verify_named(verify);
        return 0;
    }
    int r = fl_store_image_names(verify->store, &names, &count, ret_error);
    if (r < 0)
        return r;
    for (size_t i = 0; i < count; i++)
        verify_image(verify, names[i]);
    fl_store_free_names(names, count);
    r = fl_trace_each(verify->store, verify_trace, verify);
    return r < 0
               ? fl_fail(ret_error, r, "cannot list the traces of the store %s", verify->store->dir)
               : 0;
}

static int make_workers(struct verify *verify)
{
    verify->threads = fl_threads(verify->options->threads);
    verify->workers = calloc(verify->threads, sizeof(struct worker *));
    int r = verify->workers ? 0 : -ENOMEM;
    for (unsigned i = 0; r == 0 && i < verify->threads; i++) {
        verify->workers[i] = calloc(1, sizeof(struct worker));
        r = verify->workers[i] ? fl_hasher_new(&verify->workers[i]->hasher) : -ENOMEM;
    }
    return r;
}

static void free_workers(struct verify *verify)
{
    for (unsigned i = 0; verify->workers && i < verify->threads && verify->workers[i]; i++) {
        fl_hasher_free(verify->workers[i]->hasher);
        free(verify->workers[i]);
    }
    free(verify->workers);
}

int fl_store_verify(struct fl_store *store, const struct fl_verify_options *options,
                    struct fl_verify_result *ret_result, struct fl_error *ret_error)
{
    struct verify verify = {.store = store, .options = options};
    double start = fl_seconds_wall();
    int r = fl_store_lock(store, FL_LOCK_SHARED, ret_error);
    if (r < 0)
        return r;
    pthread_mutex_init(&verify.lock, NULL);
    r = make_workers(&verify);
    if (r == 0)
        r = verify_packs(&verify);
    if (r == -ECANCELED)
        r = fl_fail_plain(ret_error, r, "interrupted; the store is not verified");
    else if (r < 0)
        r = fl_fail(ret_error, r, "cannot verify the store %s", store->dir);
    else
        r = verify_images(&verify, ret_error);
    if (r == 0) {
        verify.result.seconds = fl_seconds_wall() - start;
        *ret_result = verify.result;
    }
    free_workers(&verify);
    fl_findings_free(&verify.findings);
    pthread_mutex_destroy(&verify.lock);
    fl_store_unlock(store);
    return r;
}
