// SPDX-License-Identifier: Apache-2.0
//
// mini_vmm: a VMM with Firecracker's API as far as a checkpoint needs it, and a guest that writes
// pages at a given rate. It measures its own pauses, from the order to pause until the VM runs
// again. Beside that it imitates Firecracker's own snapshots, for comparison. --check tells whether
// a memory file is what its memory was after so many writes.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/common/options.h"
#include "bench/load/guest.h"
#include "bench/load/mini_api.h"
#include "bench/load/mini_guest.h"

enum { VMSTATE_BYTES = 32 << 10, PAUSES = 4096 };
enum { OK = 200, DONE = 204, REFUSED = 400 };

struct pause {
    uint64_t ns;
    uint64_t written; // by the guest until then
    uint64_t dumped;  // pages that a snapshot of ours has written
};

struct vmm {
    struct bench_guest mapping;
    struct mini_guest guest;
    bool paused;
    uint64_t began_ns;  // of the pause
    uint64_t paused_ns; // in all
    uint64_t dumped;
    struct pause pause[PAUSES];
    uint64_t pauses;
};

static int refuse(char *reply, const char *what, int error)
{
    snprintf(reply, MINI_API_TEXT, "{\"fault_message\":\"%s: %s (os error %d)\"}", what,
             strerror(error), error);
    return REFUSED;
}

static void set_paused(struct vmm *vmm, bool paused)
{
    if (paused == vmm->paused)
        return;
    vmm->paused = paused;
    if (paused) {
        vmm->began_ns = bench_now_ns();
        vmm->dumped = 0;
        mini_guest_pause(&vmm->guest);
        return;
    }
    struct pause one = {.written = vmm->guest.written, .dumped = vmm->dumped};
    mini_guest_resume(&vmm->guest);
    one.ns = bench_now_ns() - vmm->began_ns;
    vmm->paused_ns += one.ns;
    vmm->pause[vmm->pauses++ % PAUSES] = one;
}

static bool write_all(int fd, const uint8_t *bytes, uint64_t length, uint64_t offset)
{
    for (uint64_t done = 0; done < length;) {
        ssize_t put = pwrite(fd, bytes + done, length - done, (off_t)(offset + done));
        if (put <= 0)
            return false;
        done += (uint64_t)put;
    }
    return true;
}

static int save_state(const char *path)
{
    static const uint8_t state[VMSTATE_BYTES];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    int error = write_all(fd, state, sizeof(state), 0) && fsync(fd) == 0 ? 0 : -errno;
    close(fd);
    return error;
}

// In runs, as Firecracker does.
static bool dump_dirty(struct vmm *vmm, int fd)
{
    const struct mini_guest *guest = &vmm->guest;
    for (uint64_t page = 0; page < guest->pages; page++) {
        uint64_t first = page;
        while (page < guest->pages && mini_guest_is_dirty(guest, page))
            page++;
        if (page > first && !write_all(fd, guest->memory + first * MINI_PAGE,
                                       (page - first) * MINI_PAGE, first * MINI_PAGE))
            return false;
        vmm->dumped += page - first;
    }
    return true;
}

static bool dump_all(struct vmm *vmm, int fd)
{
    vmm->dumped = vmm->guest.pages;
    return write_all(fd, vmm->guest.memory, vmm->guest.pages * MINI_PAGE, 0);
}

// As Firecracker: the state is complete before the memory's file is opened. A FIFO is opened, which
// waits for a reader, and then it cannot be made as large as the memory.
static int create_snapshot(struct vmm *vmm, const char *type, const char *state, const char *memory,
                           char *reply)
{
    if (!vmm->paused)
        return refuse(reply, "the VM runs", EINVAL);
    int error = save_state(state);
    if (error)
        return refuse(reply, "Cannot perform open on the snapshot backing file", -error);
    int fd = open(memory, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return refuse(reply, "Cannot perform open on the memory backing file", errno);
    if (ftruncate(fd, (off_t)(vmm->guest.pages * MINI_PAGE)) < 0)
        error = errno;
    else if (!(strcmp(type, "Diff") == 0 ? dump_dirty : dump_all)(vmm, fd))
        error = errno;
    else
        mini_guest_clean(&vmm->guest);
    close(fd);
    return error ? refuse(reply, "Cannot perform truncate on the memory backing file", error)
                 : DONE;
}

// The value of a field of a flat JSON object, which has no escapes. Cuts the body.
static const char *text_of(char *body, const char *name)
{
    char quoted[64];
    snprintf(quoted, sizeof(quoted), "\"%s\"", name);
    char *at = strstr(body, quoted);
    at = at ? strchr(at + strlen(quoted), ':') : NULL;
    at = at ? strchr(at, '"') : NULL;
    char *end = at ? strchr(at + 1, '"') : NULL;
    if (!end)
        return "";
    return strndup(at + 1, (size_t)(end - at - 1)); // a few for each checkpoint
}

static int answer_create(struct vmm *vmm, const struct mini_request *request, char *reply)
{
    char *body = strdup(request->body);
    const char *type = text_of(body, "snapshot_type");
    const char *state = text_of(body, "snapshot_path");
    const char *memory = text_of(body, "mem_file_path");
    free(body);
    return create_snapshot(vmm, type, state, memory, reply);
}

// A pause, a snapshot of ours and the end of the pause in one request, without a client's time.
static int answer_whole(struct vmm *vmm, const struct mini_request *request, char *reply)
{
    set_paused(vmm, true);
    int status = answer_create(vmm, request, reply);
    set_paused(vmm, false);
    return status;
}

static int answer_figures(const struct vmm *vmm, char *reply)
{
    size_t used = (size_t)snprintf(
        reply, MINI_API_TEXT,
        "{\"written\":%" PRIu64 ",\"ns\":%" PRIu64 ",\"paused_ns\":%" PRIu64 ",\"pauses\":%" PRIu64
        ",\"pause_began_ns\":%" PRIu64,
        vmm->guest.written, bench_now_ns(), vmm->paused_ns, vmm->pauses, vmm->began_ns);
    if (vmm->pauses > 0) {
        const struct pause *last = &vmm->pause[(vmm->pauses - 1) % PAUSES];
        used += (size_t)snprintf(reply + used, MINI_API_TEXT - used,
                                 ",\"last\":{\"ns\":%" PRIu64 ",\"written\":%" PRIu64
                                 ",\"dumped\":%" PRIu64 "}",
                                 last->ns, last->written, last->dumped);
    }
    snprintf(reply + used, MINI_API_TEXT - used, "}");
    return OK;
}

static bool is(const struct mini_request *request, const char *method, const char *path)
{
    return strcmp(request->method, method) == 0 && strcmp(request->path, path) == 0;
}

static int answer(void *context, const struct mini_request *request, char reply[MINI_API_TEXT])
{
    struct vmm *vmm = context;
    if (is(request, "GET", "/")) {
        snprintf(
            reply, MINI_API_TEXT,
            "{\"id\":\"mini\",\"state\":\"%s\",\"vmm_version\":\"mini\",\"app_name\":\"mini_vmm\"}",
            vmm->paused ? "Paused" : "Running");
        return OK;
    }
    if (is(request, "PATCH", "/vm")) {
        set_paused(vmm, strstr(request->body, "Paused") != NULL);
        return DONE;
    }
    if (is(request, "PUT", "/snapshot/create"))
        return answer_create(vmm, request, reply);
    if (is(request, "PUT", "/whole"))
        return answer_whole(vmm, request, reply);
    if (is(request, "GET", "/figures"))
        return answer_figures(vmm, reply);
    return refuse(reply, "Invalid request method and/or path", EINVAL);
}

static const char *socket_path, *api_path, *check_file;
static uint64_t bytes = 128u << 20, page_size = 4096, per_second, set_bytes, written;
static bool busy, fill;
static const struct bench_option options[] = {
    {.name = "socket", .value = "PATH", .text = &socket_path, .help = "the server"},
    {.name = "api", .value = "PATH", .text = &api_path, .help = "listen there; it must not exist"},
    {.name = "memory", .value = "SIZE", .large = &bytes, .help = "of the VM, a power of two"},
    {.name = "page-size",
     .value = "SIZE",
     .large = &page_size,
     .otherwise = "4K",
     .help = "4K or 2M"},
    {.name = "rate",
     .value = "N",
     .large = &per_second,
     .otherwise = "none",
     .help = "pages of 4 KiB that the guest writes in a second"},
    {.name = "set",
     .value = "SIZE",
     .large = &set_bytes,
     .otherwise = "all",
     .help = "it writes to this much of its memory only"},
    {.name = "busy",
     .flag = &busy,
     .help = "it computes between two writes, so that what it loses it does not make up for"},
    {.name = "fill",
     .flag = &fill,
     .help = "first change every page, so that none is as in the image"},
    {.name = "check",
     .value = "MEMFILE",
     .path = &check_file,
     .otherwise = "run a VM",
     .help = "compare the memory file with what the guest has written, and do nothing else"},
    {.name = "written", .value = "N", .large = &written, .help = "writes until then; for --check"},
    BENCH_OPTIONS_END,
};
static const struct bench_command command = {
    .program = "mini_vmm",
    .about = "Plays a Firecracker of which checkpoints are taken. Prints \"ready\" when all of its "
             "memory is there and the guest runs; it ends when standard input does. PUT /whole "
             "takes a snapshot as "
             "Firecracker does, GET /figures tells the pauses.",
    .option = options,
};

static int fail(const char *what, int error)
{
    fprintf(stderr, "mini_vmm: %s: %s\n", what, strerror(-error));
    return 1;
}

static int check(void)
{
    int fd = open(check_file, O_RDONLY | O_CLOEXEC);
    uint64_t pages = bytes / MINI_PAGE;
    uint64_t set = set_bytes ? set_bytes / MINI_PAGE : pages;
    uint64_t wrong = 0;
    uint64_t compared = 0;
    for (uint64_t page = 0; fd >= 0 && page < pages; page++) {
        uint64_t word;
        uint64_t seen = 0;
        if (!mini_guest_word(pages, set, written, page, &word))
            continue;
        if (pread(fd, &seen, sizeof(seen), (off_t)(page * MINI_PAGE)) < 0)
            return fail(check_file, -errno);
        compared++;
        wrong += seen != word;
    }
    if (fd < 0)
        return fail(check_file, -errno);
    close(fd);
    printf("{\"compared\":%" PRIu64 ",\"wrong\":%" PRIu64 "}\n", compared, wrong);
    return wrong > 0;
}

// Standard input ends: so does the VM, without a word to anybody, as a VMM that is killed.
static void *await_end(void *arg)
{
    char byte;
    (void)arg;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    _exit(0);
}

// The first word of a page is the guest's (mini_guest.c).
static void touch_all(uint8_t *base)
{
    for (uint64_t at = 0; at < bytes; at += MINI_PAGE) {
        volatile uint64_t *words = (volatile uint64_t *)(base + at);
        uint64_t word = words[1];
        if (fill)
            words[1] = ~word;
    }
}

static int run(void)
{
    static struct vmm vmm;
    pthread_t watch;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int listener = mini_api_listen(api_path);
    if (listener < 0)
        return fail(api_path, listener);
    int error = bench_guest_start(&vmm.mapping, socket_path, bytes, page_size);
    if (error)
        return fail(socket_path, error);
    vmm.guest = (struct mini_guest){.memory = vmm.mapping.base,
                                    .pages = bytes / MINI_PAGE,
                                    .per_second = per_second,
                                    .set = set_bytes / MINI_PAGE,
                                    .busy = busy};
    touch_all(vmm.mapping.base);
    error = mini_guest_start(&vmm.guest);
    if (!error)
        error = -pthread_create(&watch, NULL, await_end, NULL);
    if (error)
        return fail("a thread", error);
    printf("ready\n");
    fflush(stdout);
    return fail(api_path, mini_api_serve(listener, answer, &vmm));
}

int main(int argc, char **argv)
{
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    if (bytes < page_size || (bytes & (bytes - 1)) != 0)
        return bench_options_refuse(&command, "--memory is a power of two");
    if (check_file)
        return check();
    if (!socket_path || !api_path)
        return bench_options_refuse(&command, "it needs --socket and --api, or --check");
    return run();
}
