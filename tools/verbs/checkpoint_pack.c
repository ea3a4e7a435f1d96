// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The store asks for one chunk after the other (`await`), and reads the pages
// of each before it says that it has (`consumed`). The engine copies in its own order, and not far
// ahead of that: so a chunk that is read is punched out of the buffer, but for the first that are.
// The last chunk is given only when the capture is allowed to become an image. Of an image on offer
// it asks for any chunk (`look`), and for that allowance in the end (`settle`); what a VM waits for
// the engine is told by the board, too.
#include "tools/verbs/checkpoint_pack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/crash_point.h"

enum { LOOK_FIRST_US = 200, LOOK_LAST_US = 5000, LOOK_EVERY_US = 500 };
enum { GIVES_WAY = 10 }; // steps of nice
enum { GO_AHEAD_MS = 100 };
enum { KEPT_PAGES = 4096 }; // of the buffer, that are not worth the calls to punch them out

static bool has_failed(const struct capture_pack *pack)
{
    return atomic_load(&pack->cancelled) || capture_line_failed(pack->line);
}

static bool may_be_read(const struct capture_pack *pack, uint64_t first, uint64_t count)
{
    bool last = first + count >= pack->line->image_pages;
    return capture_board_done(pack->line, first, count) && (!last || atomic_load(&pack->allowed));
}

// Looks again after a pause, and each time that was in vain after a longer one: each look has its
// price, and the guest needs the CPU.
static int pack_await(void *arg, uint64_t first, uint64_t count)
{
    struct capture_pack *pack = arg;
    long pause_us = LOOK_FIRST_US;
    while (!may_be_read(pack, first, count)) {
        if (has_failed(pack))
            return -ECANCELED;
        nanosleep(&(struct timespec){.tv_nsec = pause_us * 1000}, NULL);
        pause_us = 2 * pause_us < LOOK_LAST_US ? 2 * pause_us : LOOK_LAST_US;
    }
    return 0;
}

static bool pack_ready(void *arg, uint64_t first, uint64_t count)
{
    return may_be_read(arg, first, count);
}

static int pack_look(void *arg, uint64_t first, uint64_t count, bool hurry)
{
    const struct capture_pack *pack = arg;
    struct fl_capture_board *board = pack->line->board;
    uint64_t hurried = first + 1;
    if (has_failed(pack))
        return -ECANCELED;
    if (!hurry && FL_HELD("pack_next"))
        return 0;
    bool done = capture_board_done(pack->line, first, count);
    if (hurry && !done)
        atomic_store(&board->hurried, hurried);
    else if (done && atomic_load(&board->hurried) == hurried)
        atomic_store(&board->hurried, 0);
    return done;
}

static int pack_settle(void *arg)
{
    const struct capture_pack *pack = arg;
    while (!atomic_load(&pack->allowed) || FL_HELD("pack_next")) {
        if (has_failed(pack))
            return -ECANCELED;
        nanosleep(&(struct timespec){.tv_nsec = LOOK_EVERY_US * 1000}, NULL);
    }
    return 0;
}

static void pack_offered(void *arg)
{
    struct capture_pack *pack = arg;
    atomic_store(&pack->offered, true);
    eventfd_write(pack->told, 1);
}

static enum fl_live_page pack_page(void *arg, uint64_t page)
{
    const struct capture_pack *pack = arg;
    const struct fl_capture_board *board = pack->line->board;
    if (capture_board_has(pack->line, board->data_offset, page))
        return FL_LIVE_DATA;
    if (capture_board_has(pack->line, board->zero_offset, page))
        return FL_LIVE_ZERO;
    return FL_LIVE_PARENT;
}

// It gives memory back and nothing else: what fails is freed with the buffer.
static void punch(const struct capture_pack *pack, uint64_t first, uint64_t count)
{
    int punched = fallocate(pack->line->buffer, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                            (off_t)(first * FL_PAGE_SIZE), (off_t)(count * FL_PAGE_SIZE));
    (void)punched;
}

static void pack_consumed(void *arg, uint64_t first, uint64_t count)
{
    struct capture_pack *pack = arg;
    struct fl_capture_board *board = pack->line->board;
    uint64_t pages = capture_board_count(pack->line, board->data_offset, first, count);
    if (pages == 0)
        return;
    if (atomic_fetch_add(&pack->kept, pages) + pages > KEPT_PAGES)
        punch(pack, first, count);
    atomic_fetch_add(&board->consumed, pages);
}

static void pack_stop(void *arg)
{
    struct capture_pack *pack = arg;
    atomic_store(&pack->cancelled, true);
}

static int pack_progressed(void *arg, uint64_t done, uint64_t total)
{
    struct capture_pack *pack = arg;
    (void)total;
    atomic_store(&pack->bytes_done, done);
    return atomic_load(&pack->cancelled);
}

// The guest runs meanwhile, and is what the host is for. The threads that pack inherit it.
void capture_pack_give_way(void)
{
    pid_t thread = gettid();
    errno = 0;
    int nice = getpriority(PRIO_PROCESS, (id_t)thread);
    if (errno == 0)
        setpriority(PRIO_PROCESS, (id_t)thread, nice + GIVES_WAY);
}

static bool may_be_less_nice(void)
{
    id_t thread = (id_t)gettid();
    int nice = getpriority(PRIO_PROCESS, thread);
    bool may = setpriority(PRIO_PROCESS, thread, nice - 1) == 0;
    setpriority(PRIO_PROCESS, thread, nice);
    return may;
}

// While pages are copied the guest waits at each first write to one, and then takes the CPU from a
// thread of SCHED_IDLE at once, where one that is only nicer would keep it for the rest of its
// slice. Such a thread may get no time at all on a busy host: so it does not become one if it may
// not be brought back.
static void give_way_at_once(struct capture_pack *pack)
{
    const struct sched_param none = {0};
    capture_pack_give_way();
    if (sched_getscheduler(0) != SCHED_IDLE && may_be_less_nice())
        atomic_store(&pack->idle, sched_setscheduler(0, SCHED_IDLE, &none) == 0);
}

void capture_pack_go_ahead(struct capture_pack *pack)
{
    const struct sched_param none = {0};
    DIR *threads = atomic_load(&pack->idle) ? opendir("/proc/self/task") : NULL;
    const struct dirent *entry;
    while (threads && (entry = readdir(threads))) {
        pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);
        if (thread > 0 && sched_getscheduler(thread) == SCHED_IDLE)
            sched_setscheduler(thread, SCHED_BATCH, &none);
    }
    if (threads)
        closedir(threads);
}

static void *run_pack(void *arg)
{
    struct capture_pack *pack = arg;
    if (pack->gives_way)
        give_way_at_once(pack);
    pack->error = fl_store_pack(pack->store, &pack->options, &pack->result, &pack->why);
    eventfd_write(pack->ended, 1);
    return NULL;
}

// Signals are the main thread's.
static int start_thread(struct capture_pack *pack)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&pack->thread, NULL, run_pack, pack);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -error;
}

static void close_events(struct capture_pack *pack)
{
    if (pack->ended >= 0)
        close(pack->ended);
    if (pack->told >= 0)
        close(pack->told);
}

int capture_pack_start(struct capture_pack *pack, struct fl_store *store,
                       const struct capture_line *line, const struct fl_pack_options *options,
                       bool gives_way)
{
    *pack = (struct capture_pack){
        .store = store, .line = line, .options = *options, .gives_way = gives_way};
    pack->live = (struct fl_pack_live){
        .buffer_fd = line->buffer,
        .bytes = line->image_pages * FL_PAGE_SIZE,
        .await = pack_await,
        .ready = pack_ready,
        .page = pack_page,
        .look = pack_look,
        .settle = pack_settle,
        .offered = pack_offered,
        .consumed = pack_consumed,
        .stop = pack_stop,
        .arg = pack,
        .parent = line->parent[0] ? line->parent : NULL,
        .parent_content_id = line->parent[0] ? line->parent_content_id : NULL,
    };
    pack->options.live = &pack->live;
    pack->options.progress = (struct fl_progress){.fn = pack_progressed, .arg = pack};
    pack->ended = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pack->told = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int error = pack->ended < 0 || pack->told < 0 ? -errno : start_thread(pack);
    if (error)
        close_events(pack);
    pack->running = !error;
    return error;
}

void capture_pack_allow(struct capture_pack *pack)
{
    atomic_store(&pack->allowed, true);
}

void capture_pack_cancel(struct capture_pack *pack)
{
    atomic_store(&pack->cancelled, true);
}

int capture_pack_join(struct capture_pack *pack, struct fl_error *ret_error)
{
    struct pollfd poll_fd = {.fd = pack->ended, .events = POLLIN};
    if (pack->running) {
        do
            capture_pack_go_ahead(pack);
        while (poll(&poll_fd, 1, GO_AHEAD_MS) != 1);
        pthread_join(pack->thread, NULL);
        close_events(pack);
        pack->running = false;
    }
    if (pack->error)
        fl_fail_plain(ret_error, pack->error, "%s", pack->why.text);
    return pack->error;
}
