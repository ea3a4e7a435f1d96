// SPDX-License-Identifier: Apache-2.0
//
// Captures one after another, of VMs whose threads write, read and give back their memory all the
// time, on a server whose processes die and are upgraded meanwhile. What each capture must be is
// known from a model that is copied while the VM is paused; every byte is compared. A capture may
// fail, with a reason; it is never torn, no page stays protected, and the VM goes on with the right
// bytes, all of which it compares at its end. Those of some VMs are taken by `faultline
// checkpoint`, which may be killed, too: there the image that it has published is compared.
//
// usage: capture_storm [--seed N] [--captures N] [--by-command N] [--huge] [--peaceful] [--meddle]
//                      [--verbose]
// --by-command: so many VMs of a hundred.
// --peaceful: nothing dies. --meddle: nothing dies either, and each capture must fail, or be found
// to be torn: either all pages of the VM are un-protected behind the engine's back before the
// freeze, or the VM was not paused. When it fails, its last line says why.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/stress/storm_command.h"
#include "tests/support/capture_client.h"
#include "tests/support/client.h"
#include "tests/support/memory.h"
#include "tests/support/server.h"
#include "tests/support/vmm.h"
#include "tests/support/writers.h"

enum { VMS = 3, THREADS = 3, REASONS = 32, MORE = 5, SKIPPED = 77 };
enum { SMALL_BYTES = 16 << 20, HUGE_EACH = 9, HUGE_PAGES = VMS * HUGE_EACH };
enum { LIFE = 40, REST_MS = 30 };

// What happens to one capture, beside itself.
enum trouble {
    NONE,
    ENGINE,  // is killed
    TWICE,   // and its successor too
    UPGRADE, // ...
    KEEPER,  // is killed; another is started when the capture is over
    BOTH,    // and then the engine as well
    CLOSED,  // the process that takes the checkpoint hangs up, or is killed
    VM,      // is killed
    TROUBLES
};
static const char *const trouble_name[TROUBLES] = {
    "nothing",       "the engine dies",          "the engine dies twice", "an upgrade",
    "a keeper dies", "keeper, then engine, die", "its client goes",       "the VM dies"};
// Of a hundred.
static const unsigned trouble_share[TROUBLES] = {42, 18, 4, 8, 6, 4, 10, 8};

struct storm_vm {
    struct client client;
    struct writers *writers;
    struct vmm *vmm; // shared with the client: where its memory is, and its userfaultfd
    uint64_t id;
    unsigned captures;
    uint8_t *parent; // of its next capture, if it is tracked
    bool committed;
    bool tracked;
    bool chained;       // this one has only what changed
    uint64_t protected; // pages, when last looked at
    bool by_command;    // `faultline checkpoint` takes its checkpoints
    char published[32]; // and this was the last image of it that is in the store; "": none
    bool unpaused;      // it ran on while it was captured
    long unnoticed;     // pages that were un-protected behind the engine's back
};

struct tally {
    unsigned tried, right, torn, failed, refused, chained, missed, published;
    unsigned trouble[TROUBLES];
    uint64_t pages, by_fault, by_sweep;
    unsigned reasons;
    char reason[REASONS][160];
    unsigned times[REASONS];
};

static struct {
    struct temp temp;
    struct memory memory;
    struct server server;
    char store[2 * TEST_PATH];
    char socket[2 * TEST_PATH];
    char control[2 * TEST_PATH];
    uint64_t seed;
    unsigned captures;
    unsigned by_command; // VMs of a hundred
    uint32_t page_bytes;
    bool peaceful;
    bool meddle;
    bool verbose;
    struct storm_vm vm[VMS];
    struct tally tally;
    uint8_t *image;
    uint8_t *model;
    char reason[2048]; // all that has failed; empty: nothing has
} storm = {.seed = 1, .captures = 60, .by_command = 12, .page_bytes = PAGE};

// Adds to the reason why the storm failed. False.
__attribute__((format(printf, 1, 2))) static bool fail(const char *format, ...)
{
    size_t used = strlen(storm.reason);
    va_list args;
    va_start(args, format);
    used += (size_t)snprintf(storm.reason + used, sizeof(storm.reason) - used, "%s",
                             used > 0 ? "; " : "");
    if (used < sizeof(storm.reason))
        vsnprintf(storm.reason + used, sizeof(storm.reason) - used, format, args);
    va_end(args);
    return false;
}

static unsigned dice(unsigned sides)
{
    return (unsigned)(random_next(&storm.seed) >> 33) % sides;
}

// --- VMs ---

static int vm_main(int channel, struct client_shared *shared, void *arg)
{
    struct storm_vm *vm = arg;
    vmm_map(vm->vmm, &storm.memory, storm.page_bytes, 1 + (unsigned)vm->id % 3,
            (enum vmm_protocol)(VMM_1_12 + vm->id % 2));
    vm->vmm->shared = shared;
    vmm_handshake(vm->vmm, storm.socket);
    if (vm->id % 4 != 0) // else much of it is absent
        vmm_touch_all(vm->vmm, 2, VMM_UP, true);
    vmm_check(vm->vmm, 1);
    tell_test(channel, 's');
    writers_run(vm->writers, vm->vmm);
    return 0;
}

static int run_verb(const char *verb, const char *name, const char *file)
{
    const char *args[] = {verb, "--store", storm.store, name, file, NULL};
    return faultline_run(NULL, 0, args);
}

static void *shared_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void vm_forget(struct storm_vm *vm)
{
    writers_free(vm->writers);
    munmap(vm->vmm, sizeof(*vm->vmm));
    vm->writers = NULL;
}

static bool vm_start(struct storm_vm *vm)
{
    char text[64];
    char line[512];
    vm->writers = writers_new((uint32_t)(storm.memory.bytes / storm.page_bytes), storm.page_bytes);
    vm->vmm = shared_memory(sizeof(*vm->vmm));
    if (!vm->writers || !vm->vmm)
        return fail("no memory");
    vm->writers->threads = THREADS;
    vm->writers->removes = dice(4) ? 20 + dice(200) : 3 + dice(6);
    vm->writers->at_once = 1 + dice(storm.page_bytes == PAGE ? 48 : 3);
    vm->writers->rests_us = dice(3) ? 0 : 25;
    vm->id = random_next(&storm.seed) >> 8;
    vm->captures = 0;
    vm->tracked = vm->committed = false;
    if (vm->published[0])
        run_verb("rm", vm->published, NULL);
    vm->published[0] = '\0';
    vm->by_command = !storm.meddle && dice(100) < storm.by_command;
    client_start(&vm->client, vm_main, vm);
    if (!client_says(&vm->client, 's')) {
        int status = client_wait(&vm->client);
        vm_forget(vm);
        return fail("a VM is not served, and ends with %d: %s", status, client_failure());
    }
    snprintf(text, sizeof(text), " pid=%d regions=", (int)vm->client.pid);
    if (!server_wait_log(&storm.server, text, 1) ||
        !server_find_log(&storm.server, text, line, sizeof(line)))
        return fail("a VM is not attached");
    const char *id = strstr(line, "vm=");
    vm->id = id ? strtoull(id + 3, NULL, 10) : 0;
    return true;
}

// It goes on, and all of its pages are as they should be.
static bool vm_end(struct storm_vm *vm)
{
    if (!vm->writers)
        return true;
    bool goes_on = writers_go_on(vm->writers, 200) || fail("VM %" PRIu64 " hangs", vm->id);
    writers_end(vm->writers);
    int status = client_wait(&vm->client);
    if (status != 0 || client_failure()[0] != '\0')
        goes_on = fail("VM %" PRIu64 " %s %d: %s", vm->id, status < 0 ? "hangs:" : "ended with",
                       status, client_failure());
    vm_forget(vm);
    return goes_on;
}

static bool none_is_protected(void *arg)
{
    struct storm_vm *vm = arg;
    vm->protected = 0;
    for (unsigned i = 0; i < vm->vmm->regions; i++) {
        long here =
            writers_protected(vm->client.pid, vm->vmm->region[i].base, vm->vmm->region[i].bytes);
        if (here < 0)
            return false;
        vm->protected += (uint64_t)here;
    }
    return vm->protected == 0;
}

static bool expect_unprotected(struct storm_vm *vm)
{
    return wait_until(none_is_protected, vm) ||
           fail("%" PRIu64 " pages of VM %" PRIu64 " stay protected", vm->protected, vm->id);
}

// --- trouble ---

struct troublemaker {
    pthread_t thread;
    enum trouble trouble;
    unsigned after_us;
    struct storm_vm *vm;
    struct capture_client *capture; // or
    const struct storm_command *command;
    bool failed;
};

static bool kill_engine(void)
{
    unsigned ready = server_count_log(&storm.server, "event=ready pid=");
    pid_t engine = server_engine(&storm.server);
    storm.server.deaths++;
    return engine > 0 && kill(engine, SIGKILL) == 0 &&
           server_wait_log(&storm.server, "event=ready pid=", ready + 1);
}

static bool upgrade(void)
{
    char output[1024];
    const char *args[] = {"upgrade", "--control", storm.control, NULL};
    if (faultline_run(output, sizeof(output), args) == 0)
        return true;
    return fail("an upgrade fails: %s", output);
}

static void *make_trouble(void *arg)
{
    struct troublemaker *maker = arg;
    bool right = true;
    usleep(maker->after_us);
    switch (maker->trouble) {
    case ENGINE:
        right = kill_engine();
        break;
    case TWICE:
        right = kill_engine() && kill_engine();
        break;
    case UPGRADE:
        right = upgrade();
        break;
    case KEEPER:
    case BOTH:
        server_kill_keeper(&storm.server);
        break;
    case CLOSED:
        if (maker->command)
            kill(maker->command->pid, SIGKILL);
        else
            shutdown(maker->capture->channel, SHUT_RDWR);
        break;
    case VM:
        kill(maker->vm->client.pid, SIGKILL);
        break;
    case NONE:
    case TROUBLES:
        break;
    }
    maker->failed = !right;
    return NULL;
}

static enum trouble choose_trouble(void)
{
    unsigned at = dice(100);
    unsigned trouble = NONE;
    if (storm.peaceful)
        return NONE;
    while (at >= trouble_share[trouble])
        at -= trouble_share[trouble++];
    return (enum trouble)trouble;
}

// This must be the thread that lives as long as the server, which dies with who started it.
static bool serve(void)
{
    static const char *const options[] = {"--cache",         "16M",   "--workers", "2",
                                          "--upgrade-trial", "100ms", NULL};
    return server_serve(&storm.server, &storm.temp, storm.store, options) ||
           fail("no server is ready");
}

// Everything is there again.
static bool trouble_ends(struct troublemaker *maker)
{
    pthread_join(maker->thread, NULL);
    if (maker->failed)
        return fail("%s: no engine serves", trouble_name[maker->trouble]);
    if (maker->trouble == KEEPER || maker->trouble == BOTH) {
        if (!serve() || (maker->trouble == BOTH && !kill_engine()))
            return fail("%s: no engine serves", trouble_name[maker->trouble]);
    }
    return true;
}

// --- one capture ---

static void note_reason(const char *text)
{
    struct tally *tally = &storm.tally;
    char reason[160];
    size_t length = 0;
    // Numbers are not what tells one from another.
    for (; *text && length < sizeof(reason) - 1; text++) {
        bool digit = (*text >= '0' && *text <= '9') ||
                     (length > 0 && reason[length - 1] == '#' && strchr("abcdefx", *text));
        if (!digit || length == 0 || reason[length - 1] != '#')
            reason[length++] = digit ? '#' : *text;
    }
    reason[length] = '\0';
    unsigned at = 0;
    while (at < tally->reasons && strcmp(tally->reason[at], reason) != 0)
        at++;
    if (at == tally->reasons && at < REASONS)
        strcpy(tally->reason[tally->reasons++], reason);
    if (at < REASONS)
        tally->times[at]++;
}

// The VM's own descriptor un-protects all of it.
static bool meddle(const struct storm_vm *vm)
{
    int pidfd = (int)syscall(SYS_pidfd_open, vm->client.pid, 0);
    int uffd = (int)syscall(SYS_pidfd_getfd, pidfd, vm->vmm->uffd, 0);
    bool right = uffd >= 0;
    for (unsigned i = 0; i < vm->vmm->regions; i++) {
        const struct vmm_region *region = &vm->vmm->region[i];
        struct uffdio_writeprotect range = {
            .range = {.start = (uintptr_t)region->base, .len = region->bytes}};
        right = right && ioctl(uffd, UFFDIO_WRITEPROTECT, &range) == 0;
    }
    close(uffd);
    close(pidfd);
    return right || fail("the pages cannot be un-protected");
}

// Pages of 4 KiB that are there, and that a write to would not be noticed.
static long unnoticed(const struct storm_vm *vm)
{
    const uint64_t there = 3ULL << 62;
    const uint64_t protected = 1ULL << 57;
    uint64_t entry = 0;
    char path[64];
    long count = 0;
    snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)vm->client.pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (unsigned i = 0; i < vm->vmm->regions; i++) {
        const struct vmm_region *region = &vm->vmm->region[i];
        uint64_t page = (uintptr_t)region->base / PAGE;
        for (uint64_t end = page + region->bytes / PAGE; page < end; page++)
            count +=
                pread(fd, &entry, sizeof(entry), (off_t)(page * sizeof(entry))) == sizeof(entry) &&
                (entry & there) && !(entry & protected);
    }
    close(fd);
    return count;
}

static bool is_paused_or_dead(void *arg)
{
    struct storm_vm *vm = arg;
    return atomic_load(&vm->writers->waiting) == THREADS || process_ended(&vm->client.pid);
}

static bool pause_vm(struct storm_vm *vm)
{
    atomic_store(&vm->writers->paused, true);
    if (!wait_until(is_paused_or_dead, vm))
        fail("VM %" PRIu64 " hangs", vm->id);
    return atomic_load(&vm->writers->waiting) == THREADS;
}

// To the end of the copying. False: it has failed, and says why.
static bool capture_through(struct storm_vm *vm, struct capture_client *capture)
{
    if (!capture_await(capture, FL_CAPTURE_READY))
        return false;
    bool paused = pause_vm(vm); // else it was killed
    writers_image(vm->writers, &storm.memory, storm.model);
    vm->unpaused = storm.meddle && storm.tally.tried % 2 == 0;
    if (vm->unpaused) {
        writers_resume(vm->writers);
        writers_go_on(vm->writers, 500);
    } else if (storm.meddle && !meddle(vm)) {
        return false;
    }
    bool frozen = paused && capture_freeze(capture) && capture_await(capture, FL_CAPTURE_FROZEN);
    vm->unnoticed = storm.meddle && !vm->unpaused ? unnoticed(vm)
                                                  : 0; // else the engine has protected them again
    writers_resume(vm->writers);
    return frozen && capture_take_all(capture, storm.image);
}

static bool compare(const struct storm_vm *vm, const char *trouble)
{
    uint64_t wrong = 0;
    uint64_t first = 0;
    for (uint64_t at = storm.memory.bytes; at > 0; at -= PAGE) {
        if (memcmp(storm.image + at - PAGE, storm.model + at - PAGE, PAGE) == 0)
            continue;
        wrong++;
        first = at / PAGE - 1;
    }
    storm.tally.pages += storm.memory.bytes / PAGE;
    if (wrong == 0) {
        storm.tally.right++;
        storm.tally.missed += vm->unnoticed > 0 || vm->unpaused;
        return true;
    }
    storm.tally.torn++;
    if (storm.meddle)
        return true;
    uint64_t has[2];
    memcpy(&has[0], storm.image + first * PAGE, sizeof(has[0]));
    memcpy(&has[1], storm.model + first * PAGE, sizeof(has[1]));
    return fail("TORN: capture %u, of VM %" PRIu64 ", %s, %s: %" PRIu64
                " pages, the first is %" PRIu64 ", which has %" PRIx64 " and not %" PRIx64,
                storm.tally.tried, vm->id, vm->chained ? "in a chain" : "the first", trouble, wrong,
                first, has[0], has[1]);
}

// It is published, and the next one is to have it as its parent.
static void keep(struct storm_vm *vm, struct capture_client *capture)
{
    static const char published[] =
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef kept";
    memcpy(vm->parent, storm.image, storm.memory.bytes);
    // Without an answer the engine may have it all the same.
    vm->committed = capture_commit(capture, published);
    vm->tracked = vm->committed && capture_await(capture, FL_CAPTURE_KEPT);
}

static bool judge(struct storm_vm *vm, struct capture_client *capture, bool complete,
                  const char *trouble)
{
    struct tally *tally = &storm.tally;
    bool right = true;
    bool keeps = complete && (capture->granted & FL_CAPTURE_KEEP_ARMED) && dice(4) != 0;
    if (complete) {
        tally->by_fault += capture->board->by_fault;
        tally->by_sweep += capture->board->by_sweep;
        tally->chained += vm->chained;
        right = compare(vm, trouble);
    } else {
        tally->failed++;
        note_reason(capture->error ? capture->text : "it cannot be told to freeze");
        if (capture->error == -ETIMEDOUT || capture->error == -EPROTO)
            right = fail("capture %u, %s: %s", tally->tried, trouble, capture->text);
    }
    vm->tracked = false;
    if (keeps)
        keep(vm, capture);
    return right;
}

static bool begin(struct storm_vm *vm, struct capture_client *capture)
{
    uint64_t flags = dice(3) ? FL_CAPTURE_KEEP_ARMED : 0;
    if (dice(8) == 0 || storm.meddle)
        flags |= FL_CAPTURE_FULL;
    if (storm.meddle)
        flags |= FL_CAPTURE_KEEP_ARMED; // else the engine un-protects what it has copied
    storm.tally.tried++;
    vm->captures++;
    if (!capture_connect(capture, storm.control))
        return fail("the engine cannot be reached: %s", capture->text);
    int error = capture_begin(capture, vm->id, flags);
    if (error) {
        storm.tally.refused++;
        note_reason(capture->text);
        capture_close(capture);
        return false;
    }
    bool chained = !(capture->granted & FL_CAPTURE_FULL);
    if (chained && !vm->committed)
        return fail("a chain goes on that was not committed");
    vm->chained = chained;
    vm->committed = false;
    memcpy(storm.image, chained ? vm->parent : storm.memory.data, storm.memory.bytes);
    return true;
}

// When the trouble is over.
static bool expect_left(struct storm_vm *vm, enum trouble trouble)
{
    if (trouble == VM) {
        client_kill(&vm->client);
        vm_forget(vm);
        return true;
    }
    // An engine that died after the capture was kept has taken with it what was tracked.
    if (trouble != NONE && trouble != CLOSED)
        vm->tracked = vm->tracked && !none_is_protected(vm);
    if (trouble != NONE && vm->committed && !vm->tracked)
        return true; // it may be kept
    return vm->tracked || expect_unprotected(vm);
}

// --- one checkpoint, by the command ---

// False: there is none.
static bool read_image(const char *name)
{
    const char *file = temp_path(&storm.temp, "unpacked");
    unlink(file);
    if (run_verb("unpack", name, file) != 0)
        return false;
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    size_t got = 0;
    ssize_t part = 1;
    while (part > 0 && got < storm.memory.bytes) {
        part = read(fd, storm.image + got, storm.memory.bytes - got);
        got += part > 0 ? (size_t)part : 0;
    }
    close(fd);
    return got == storm.memory.bytes || fail("%s has %zu bytes only", name, got);
}

// It is the parent of the next one, and the one before is not needed any more.
static void publish(struct storm_vm *vm, const char *name)
{
    if (vm->published[0])
        run_verb("rm", vm->published, NULL);
    snprintf(vm->published, sizeof(vm->published), "%s", name);
    storm.tally.published++;
}

// From the pause to the last word. It may be killed at any time, and the VM goes on.
static int checkpoint_through(struct storm_vm *vm, struct storm_command *command)
{
    bool asked = storm_command_says(command, "\"event\":\"pause\"");
    if (asked && pause_vm(vm)) {
        writers_image(vm->writers, &storm.memory, storm.model);
        if (storm_command_answer(command))
            storm_command_says(command, "\"event\":\"resume\"");
    }
    writers_resume(vm->writers);
    return storm_command_end(command);
}

// An image of a command that failed must not be there; of one that was killed it may be.
static bool judge_checkpoint(struct storm_vm *vm, const struct storm_command *command, int status,
                             const char *name, const char *trouble)
{
    struct tally *tally = &storm.tally;
    const char *why = strstr(command->text, "faultline checkpoint: ");
    bool there = read_image(name);
    // That of before may be kept as long as none has begun.
    vm->committed = there || (vm->committed && !strstr(command->text, "\"begun\""));
    vm->tracked = status == 0 && strstr(command->text, "\"kept_armed\":true");
    vm->chained = vm->published[0] && strstr(command->text, "\"parent\":\"c");
    if (there) {
        tally->chained += vm->chained;
        publish(vm, name);
        if (status != 0 && status != 128 + SIGKILL)
            return fail("checkpoint %u, %s, ended with %d and has an image: %s", tally->tried,
                        trouble, status, command->text);
        return compare(vm, trouble);
    }
    tally->failed++;
    note_reason(status == 128 + SIGKILL ? "the command was killed" : why ? why : "it said nothing");
    return status == 1 || status == 128 + SIGKILL ||
           fail("checkpoint %u, %s, ended with %d and has no image: %s", tally->tried, trouble,
                status, command->text);
}

static bool checkpoint_one(struct storm_vm *vm, struct troublemaker *maker)
{
    char name[32];
    struct storm_command command;
    const char *flags[3] = {NULL};
    unsigned count = 0;
    if (dice(3))
        flags[count++] = "--keep-armed";
    if (dice(8) == 0)
        flags[count++] = "--full";
    storm.tally.tried++;
    storm.tally.trouble[maker->trouble]++;
    vm->captures++;
    maker->command = &command;
    maker->after_us *= dice(2) ? 4 : 40; // the process has to begin, and packs for longer
    snprintf(name, sizeof(name), "c%u", storm.tally.tried);
    if (!storm_command_begin(&command, storm.control, name, vm->id, flags))
        return fail("no process");
    if (pthread_create(&maker->thread, NULL, make_trouble, maker) != 0)
        return fail("no thread");
    int status = checkpoint_through(vm, &command);
    bool right = trouble_ends(maker);
    storm_command_reap(&command);
    right = judge_checkpoint(vm, &command, status, name, trouble_name[maker->trouble]) && right;
    if (storm.verbose)
        printf("checkpoint %u, VM %" PRIu64 ", %s after %u us: %d\n", storm.tally.tried, vm->id,
               trouble_name[maker->trouble], maker->after_us, status);
    return expect_left(vm, maker->trouble) && right;
}

static bool capture_one(struct storm_vm *vm)
{
    struct capture_client capture;
    struct troublemaker maker = {.trouble = choose_trouble(), .vm = vm, .capture = &capture};
    // All of one takes some 20 ms here; half of the trouble is to come within the first.
    maker.after_us = dice(2) ? dice(8000) : dice(60000);
    if (vm->by_command)
        return checkpoint_one(vm, &maker);
    if (!begin(vm, &capture)) {
        vm->tracked = false;
        return storm.reason[0] == '\0' && (vm->committed || expect_unprotected(vm));
    }
    storm.tally.trouble[maker.trouble]++;
    if (pthread_create(&maker.thread, NULL, make_trouble, &maker) != 0)
        return fail("no thread");
    bool complete = capture_through(vm, &capture);
    bool right = judge(vm, &capture, complete, trouble_name[maker.trouble]);
    if (storm.verbose)
        printf("capture %u, VM %" PRIu64 ", %s after %u us: %s\n", storm.tally.tried, vm->id,
               trouble_name[maker.trouble], maker.after_us, complete ? "COPIED" : capture.text);
    right &= trouble_ends(&maker);
    capture_close(&capture);
    return expect_left(vm, maker.trouble) && right;
}

// A few more if no page was written to before it was copied: on a busy machine it may not be soon.
static bool goes_on(unsigned done)
{
    return done < storm.captures ||
           (done < MORE * storm.captures && !storm.meddle && storm.tally.by_fault == 0);
}

static bool capture_all(void)
{
    bool right = true;
    for (unsigned i = 0; right && goes_on(i); i++) {
        struct storm_vm *vm = &storm.vm[dice(VMS)];
        if (vm->writers && vm->captures >= LIFE)
            right = vm_end(vm);
        if (right && !vm->writers)
            right = vm_start(vm);
        if (right && dice(3) == 0)
            usleep(dice(REST_MS) * 1000);
        right = right && capture_one(vm);
        if (i % 100 == 99)
            printf("%u captures: %u right, %u failed, %u refused, %u torn\n", i + 1,
                   storm.tally.right, storm.tally.failed, storm.tally.refused, storm.tally.torn);
    }
    for (unsigned i = 0; i < VMS; i++)
        right &= vm_end(&storm.vm[i]);
    return right;
}

// --- the run ---

static bool start(void)
{
    char output[1024];
    bool huge = storm.page_bytes != PAGE;
    snprintf(storm.store, sizeof(storm.store), "%s", temp_path(&storm.temp, "store"));
    const char *file = temp_path(&storm.temp, "memory");
    const char *args[] = {"pack", "--store", storm.store, "--name", "image", file, NULL};
    memory_make(&storm.memory, file, huge ? (uint64_t)HUGE_EACH * HUGE : SMALL_BYTES, storm.seed);
    storm.image = malloc(storm.memory.bytes);
    storm.model = malloc(storm.memory.bytes);
    for (unsigned i = 0; i < VMS; i++)
        storm.vm[i].parent = malloc(storm.memory.bytes);
    if (faultline_run(output, sizeof(output), args) != 0)
        return fail("the image cannot be packed: %s", output);
    snprintf(storm.socket, sizeof(storm.socket), "%s",
             temp_path(&storm.temp, "sockets/image.sock"));
    snprintf(storm.control, sizeof(storm.control), "%s", temp_path(&storm.temp, "control.sock"));
    return serve() && (server_wait_log(&storm.server, "event=listen image=image", 1) ||
                       fail("the server does not listen"));
}

static bool has_log(const char *text, const char *meaning)
{
    char line[512];
    bool found = server_find_log(&storm.server, text, line, sizeof(line));
    if (found)
        fail("%s: %s", meaning, line);
    return found;
}

static void report(void)
{
    const struct tally *tally = &storm.tally;
    printf("%u captures: %u right (%u in a chain, %u as images), %u failed, %u refused, %u torn\n",
           tally->tried, tally->right, tally->chained, tally->published, tally->failed,
           tally->refused, tally->torn);
    printf("%" PRIu64 " pages compared; %" PRIu64 " copied for a write, %" PRIu64 " in turn\n",
           tally->pages, tally->by_fault, tally->by_sweep);
    for (unsigned i = 0; i < TROUBLES; i++)
        printf("%6u %s\n", tally->trouble[i], trouble_name[i]);
    for (unsigned i = 0; i < tally->reasons; i++)
        printf("%6u \"%s\"\n", tally->times[i], tally->reason[i]);
}

// What the run must have had to say anything.
static bool enough(void)
{
    const struct tally *tally = &storm.tally;
    if (storm.meddle)
        return (tally->missed == 0 || fail("%u torn captures passed", tally->missed)) &&
               ((tally->failed > 0 && tally->torn > 0) || fail("nothing was meddled with"));
    return (tally->right >= tally->tried / 3 || fail("most captures failed")) &&
           (tally->by_fault > 0 || fail("no page was copied for a write"));
}

static bool run(void)
{
    bool right = start() && capture_all();
    if (right && run_verb("verify", NULL, NULL) != 0)
        right = fail("the store is damaged");
    report();
    right = right && enough();
    int status = server_stop(&storm.server);
    if (status != 0)
        right = fail("the server ended with %d", status);
    if (has_log("event=poison", "pages were poisoned"))
        right = false;
    if (has_log(SERVER_SANITIZER_SUMMARY, "a sanitizer's report"))
        right = false;
    if (!right && status != -1) // else it has been printed
        server_print_log(&storm.server);
    return right;
}

static bool parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},       {"captures", required_argument, NULL, 'c'},
        {"by-command", required_argument, NULL, 'b'}, {"huge", no_argument, NULL, 'h'},
        {"peaceful", no_argument, NULL, 'p'},         {"meddle", no_argument, NULL, 'm'},
        {"verbose", no_argument, NULL, 'v'},          {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 's')
            storm.seed = strtoull(optarg, NULL, 0);
        else if (option == 'c')
            storm.captures = (unsigned)strtoul(optarg, NULL, 0);
        else if (option == 'b')
            storm.by_command = (unsigned)strtoul(optarg, NULL, 0);
        else if (option == 'h')
            storm.page_bytes = HUGE;
        else if (option == 'p')
            storm.peaceful = true;
        else if (option == 'm')
            storm.meddle = storm.peaceful = true;
        else if (option == 'v')
            storm.verbose = true;
        else
            return false;
    }
    return storm.captures > 0;
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: capture_storm [--seed N] [--captures N] [--by-command N] [--huge] "
                        "[--peaceful] [--meddle] [--verbose]\n");
        return 2;
    }
    if (geteuid() != 0 || access("/dev/userfaultfd", R_OK | W_OK) != 0) {
        fprintf(stderr, "SKIPPED: this test needs root and userfaultfd\n");
        return SKIPPED;
    }
    if (storm.page_bytes == HUGE && huge_pages_free() < HUGE_PAGES) {
        fprintf(stderr, "SKIPPED: this test needs %d free huge pages\n", HUGE_PAGES);
        return SKIPPED;
    }
    setvbuf(stdout, NULL, _IOLBF, 0); // in the order of stderr
    signal(SIGPIPE, SIG_IGN);         // of a command that is killed
    temp_make(&storm.temp);
    printf("seed %" PRIu64 "\n", storm.seed);
    uint64_t seed = storm.seed;
    bool right = run();
    memory_free(&storm.memory);
    temp_remove(&storm.temp);
    if (!right)
        fprintf(stderr, "capture_storm: FAILED with seed %" PRIu64 ": %s\n", seed, storm.reason);
    return right ? 0 : 1;
}
