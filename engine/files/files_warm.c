// SPDX-License-Identifier: Apache-2.0
//
// The replay of files: the working set of an image is read into the page cache when its file is
// opened, in the order of its trace.
//
// It is read through the mount, so that the pages are charged to the server's memory cgroup and not
// to that of the first VM. Whoever reads a mount waits for its server: no thread of the engine may,
// or it could wait for itself and hold up its successor. So another process does, which the keeper
// starts, `faultline warm`. It ends when we tell it to, as the server stops. If we die, or yield,
// it goes on with our successor, which does not know it and lists no end of it.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <urcu/compiler.h>

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/files/files_internal.h"
#include "engine/image/store_place.h"
#include "engine/link/channel.h"
#include "engine/link/keeper_link.h"
#include "snapshot/read.h"

// Two, as the disk and the processors are the VMs'; those that are many wait, and VMs that come
// first fault.
enum { RUNNING_MOST = 2, WAITING_MOST = 256, ANSWER_BYTES = 512 };
// VMs that run one after the other open the file again and again. What the kernel has taken away
// since, it took because memory was short.
#define NOT_AGAIN (30 * FL_NS_PER_S)

struct warm {
    struct cds_list_head link; // in fl_files.warms
    struct fl_files *files;
    struct fl_source source; // our end of its standard input and output; -1: it waits for its turn
    uint64_t since_ns;
    struct fl_image_id id;
    char name[FL_IMAGE_NAME_BYTES];
    char answer[ANSWER_BYTES];
    size_t heard;
};

bool fl_files_can_warm(const struct fl_files *files, const struct fl_image *image)
{
    struct fl_reader *reader;
    struct fl_trace *trace;
    if (!files->options.warm || !files->options.path ||
        fl_store_place_get(files->options.place, &reader) != 0)
        return false;
    int error = fl_trace_open(reader, image, &trace);
    fl_reader_close(reader);
    if (error)
        return false;
    fl_trace_unref(trace);
    return true;
}

static bool fill_arguments(const struct fl_files *files, const char *name, char *text, size_t size)
{
    const struct fl_files_options *options = &files->options;
    int length = snprintf(text, size,
                          "warm\n--json\n--until-told\n--store\n%s\n--reserve\n%u\n--image\n%s\n"
                          "--max\n%" PRIu64 "\n%s/%s.mem\n",
                          options->store, options->warm_reserve, name,
                          options->warm_bytes > 0 ? options->warm_bytes : UINT64_C(1) << 62,
                          options->path, name);
    return length > 0 && (size_t)length < size;
}

// Our end of its standard input and output, or -errno. It is of our own version, whatever is
// installed by now.
static int start_process(const struct fl_files *files, const char *name)
{
    int pair[2];
    char arguments[FL_CHANNEL_TEXT];
    if (!fill_arguments(files, name, arguments, sizeof(arguments)))
        return -ENAMETOOLONG;
    int program = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    if (program < 0)
        return -errno;
    int error =
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0 ? 0 : -errno;
    if (!error) {
        error = fl_keeper_link_run_command(files->options.keeper_link, pair[1], program, arguments);
        close(pair[1]);
        if (error)
            close(pair[0]);
    }
    close(program);
    return error ? error : pair[0];
}

static uint64_t number_of(const char *answer, const char *key)
{
    char quoted[32];
    snprintf(quoted, sizeof(quoted), "\"%s\":", key);
    const char *at = strstr(answer, quoted);
    return at ? strtoull(at + strlen(quoted), NULL, 10) : 0;
}

static bool same_id(struct fl_image_id one, struct fl_image_id other)
{
    return one.word[0] == other.word[0] && one.word[1] == other.word[1];
}

static bool was_just_now(const struct fl_files *files, struct fl_image_id id, uint64_t now)
{
    for (unsigned i = 0; i < FL_FILES_WARMED; i++) {
        const struct fl_files_warmed *warmed = &files->warmed[i];
        if (warmed->at_ns > 0 && now - warmed->at_ns < NOT_AGAIN && same_id(warmed->id, id))
            return true;
    }
    return false;
}

static void log_end(const struct warm *warm)
{
    const char *answer = warm->answer;
    if (!strstr(answer, "\"warm\":")) // its reason is in the log before
        return;
    fl_log(FL_LOG_INFO,
           "event=files_warmed image=%s pages=%" PRIu64 " warm=%" PRIu64 " there=%" PRIu64
           " us=%" PRIu64 " end=%s",
           warm->name, number_of(answer, "pages"), number_of(answer, "warm"),
           number_of(answer, "there"), (fl_now() - warm->since_ns) / 1000,
           strstr(answer, "\"end\":\"scarce\"") ? "scarce"
           : strstr(answer, "\"end\":\"told\"") ? "told"
                                                : "done");
}

static void free_warm(struct warm *warm)
{
    if (warm->source.fd >= 0) {
        fl_loop_unwatch(warm->files->options.loop, &warm->source);
        close(warm->source.fd);
        warm->files->warms_running--;
    }
    cds_list_del(&warm->link);
    free(warm);
}

static void start_next(struct fl_files *files);

static void heard(struct fl_source *source, uint32_t events)
{
    (void)events;
    struct warm *warm = caa_container_of(source, struct warm, source);
    struct fl_files *files = warm->files;
    size_t room = sizeof(warm->answer) - 1 - warm->heard;
    ssize_t got = room > 0 ? read(source->fd, warm->answer + warm->heard, room) : 0;
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got > 0) {
        warm->heard += (size_t)got;
        return;
    }
    log_end(warm);
    free_warm(warm);
    start_next(files);
}

// False: it goes without.
static bool start(struct warm *warm)
{
    struct fl_files *files = warm->files;
    int fd = start_process(files, warm->name);
    if (fd < 0)
        return false;
    warm->source.fd = fd;
    warm->since_ns = fl_now();
    files->warmed[files->next_warmed++ % FL_FILES_WARMED] =
        (struct fl_files_warmed){warm->id, warm->since_ns};
    files->warms_running++;
    return fl_loop_watch(files->options.loop, &warm->source, EPOLLIN) == 0;
}

static void start_next(struct fl_files *files)
{
    struct warm *warm;
    struct warm *next;
    cds_list_for_each_entry_safe(warm, next, &files->warms, link)
    {
        if (files->warms_running == RUNNING_MOST)
            return;
        if (warm->source.fd < 0 && !start(warm))
            free_warm(warm);
    }
}

void fl_files_warm(struct fl_files *files, const struct fl_image *image)
{
    const char *name = fl_image_name(image);
    struct fl_image_id id = fl_image_id(image);
    struct warm *warm;
    unsigned count = 0;
    cds_list_for_each_entry(warm, &files->warms, link)
    {
        count++;
        if (strcmp(warm->name, name) == 0) // perhaps it is this very process that opens the file
            return;
    }
    if (count >= WAITING_MOST || atomic_load(&files->refusing) || was_just_now(files, id, fl_now()))
        return;
    warm = calloc(1, sizeof(*warm));
    if (!warm)
        return;
    warm->files = files;
    warm->id = id;
    warm->source = (struct fl_source){.fd = -1, .ready = heard};
    snprintf(warm->name, sizeof(warm->name), "%s", name);
    cds_list_add_tail(&warm->link, &files->warms);
    start_next(files);
}

void fl_files_warm_end(struct fl_files *files)
{
    struct warm *warm;
    cds_list_for_each_entry(warm, &files->warms, link)
    {
        if (warm->source.fd >= 0)
            send(warm->source.fd, "e", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    fl_files_warm_leave(files);
}

void fl_files_warm_leave(struct fl_files *files)
{
    struct warm *warm;
    struct warm *next;
    cds_list_for_each_entry_safe(warm, next, &files->warms, link) free_warm(warm);
}
