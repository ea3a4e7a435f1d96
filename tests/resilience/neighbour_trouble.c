// SPDX-License-Identifier: Apache-2.0
#include "tests/resilience/neighbour_trouble.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/load/guest.h"

enum { PAGE_BYTES = 4096, SHARE = 8, STOP_AFTER_MS = 300 };
#define SWAP_BYTES ((uint64_t)3 << 30)

const char *const trouble_key[TROUBLES] = {"none",    "busy",   "limit",  "killed",
                                           "stopped", "frozen", "madvise"};

static struct {
    char memory[128]; // paths of cgroups of version 1; "": not made
    char freezer[128];
    char blkio[128];
    char file[512];
    char device[32];
    int loop;
    bool swaps;
} held = {.loop = -1};

// --- cgroups ---

static bool put(const char *dir, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (!done)
        fprintf(stderr, "neighbour: %s cannot be written: %s\n", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return done;
}

static bool put_number(const char *dir, const char *name, uint64_t number)
{
    char text[32];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
    return put(dir, name, text);
}

static bool make_cgroup(char dir[128], const char *controller)
{
    snprintf(dir, 128, "/sys/fs/cgroup/%s/fl-neighbour-%d", controller, (int)getpid());
    if (mkdir(dir, 0700) == 0)
        return true;
    fprintf(stderr, "neighbour: %s cannot be made: %s\n", dir, strerror(errno));
    dir[0] = '\0';
    return false;
}

// --- swap ---

// Makes a loop device of the swap file: a cgroup can throttle a device, but not a file.
static bool make_loop(void)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int number = control >= 0 ? ioctl(control, LOOP_CTL_GET_FREE) : -1;
    int file = open(held.file, O_RDWR | O_CLOEXEC);
    snprintf(held.device, sizeof(held.device), "/dev/loop%d", number);
    held.loop = number >= 0 ? open(held.device, O_RDWR | O_CLOEXEC) : -1;
    bool done = held.loop >= 0 && file >= 0 && ioctl(held.loop, LOOP_SET_FD, file) == 0;
    if (control >= 0)
        close(control);
    if (file >= 0)
        close(file);
    return done;
}

static bool make_swap(const char *dir)
{
    char command[640];
    snprintf(held.file, sizeof(held.file), "%s/swap", dir);
    int fd = open(held.file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    bool done = fd >= 0 && ftruncate(fd, (off_t)SWAP_BYTES) == 0;
    if (fd >= 0)
        close(fd);
    snprintf(command, sizeof(command), "mkswap %s >/dev/null 2>&1", held.file);
    done = done && system(command) == 0 && make_loop(); // NOLINT(cert-env33-c)
    held.swaps = done && swapon(held.device, 0) == 0;
    if (!held.swaps)
        fprintf(stderr, "neighbour: no swap on a loop device: %s\n", strerror(errno));
    return held.swaps;
}

// Slows the server down where it writes to the swap, which it does when it makes room for the
// neighbour's pages. What the neighbour reads from the swap is not slow.
static bool make_slow(uint64_t rate, const pid_t *server, unsigned servers)
{
    struct stat status;
    char text[64];
    if (stat(held.device, &status) != 0 || !make_cgroup(held.blkio, "blkio"))
        return false;
    snprintf(text, sizeof(text), "%u:%u %llu", (unsigned)(status.st_rdev >> 8 & 0xfff),
             (unsigned)(status.st_rdev & 0xff), (unsigned long long)rate);
    bool done = put(held.blkio, "blkio.throttle.write_bps_device", text);
    for (unsigned i = 0; i < servers && done; i++)
        done = put_number(held.blkio, "cgroup.procs", (uint64_t)server[i]);
    return done;
}

bool trouble_prepare(const struct trouble_options *options, enum trouble kind, const pid_t *server,
                     unsigned servers)
{
    if (kind == TROUBLE_FROZEN)
        return make_cgroup(held.freezer, "freezer");
    return kind != TROUBLE_LIMIT ||
           (make_cgroup(held.memory, "memory") &&
            put_number(held.memory, "memory.limit_in_bytes", options->bytes / SHARE) &&
            make_swap(options->dir) && make_slow(options->swap_rate, server, servers));
}

void trouble_give_back(void)
{
    if (held.swaps)
        swapoff(held.device);
    if (held.loop >= 0) {
        ioctl(held.loop, LOOP_CLR_FD);
        close(held.loop);
    }
    if (held.file[0])
        unlink(held.file);
    char *dirs[] = {held.memory, held.freezer, held.blkio};
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned times = 0; dirs[i][0] && rmdir(dirs[i]) != 0 && times < 200; times++)
            usleep(10000);
        dirs[i][0] = '\0';
    }
    held.file[0] = '\0';
    held.loop = -1;
    held.swaps = false;
}

// --- the neighbour ---

static int neighbour_main(const struct trouble_now *now)
{
    struct bench_guest guest;
    uint64_t bytes = now->options->bytes;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (now->kind == TROUBLE_LIMIT && !put_number(held.memory, "cgroup.procs", (uint64_t)getpid()))
        return 1;
    if (now->kind == TROUBLE_FROZEN &&
        !put_number(held.freezer, "cgroup.procs", (uint64_t)getpid()))
        return 1;
    if (bench_guest_start(&guest, now->options->socket, bytes, PAGE_BYTES) != 0)
        return 1;
    for (;;) {
        for (uint64_t at = 0; at < bytes; at += PAGE_BYTES) {
            (void)*(const volatile unsigned char *)(guest.base + at);
            atomic_fetch_add(now->touched, 1);
            if (now->kind == TROUBLE_MADVISE && at % (64 * PAGE_BYTES) == 0 && at > 0)
                madvise(guest.base + at - (uint64_t)64 * PAGE_BYTES, (size_t)32 * PAGE_BYTES,
                        MADV_DONTNEED);
        }
        if (now->kind != TROUBLE_LIMIT)
            madvise(guest.base, bytes, MADV_DONTNEED);
    }
}

static bool start(struct trouble_now *now)
{
    atomic_store(now->touched, 0);
    now->pid = fork();
    if (now->pid == 0)
        _exit(neighbour_main(now));
    return now->pid > 0;
}

static void kill_it(struct trouble_now *now)
{
    if (now->pid <= 0)
        return;
    kill(now->pid, SIGKILL);
    waitpid(now->pid, NULL, 0);
    now->pid = 0;
}

bool trouble_begin(struct trouble_now *now, const struct trouble_options *options,
                   enum trouble kind)
{
    _Atomic uint64_t *touched =
        mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (touched == MAP_FAILED)
        return false;
    *now = (struct trouble_now){
        .options = options, .kind = kind, .touched = touched, .stop_at = STOP_AFTER_MS};
    return kind == TROUBLE_NONE || start(now);
}

void trouble_go_on(struct trouble_now *now, uint64_t ms)
{
    bool stops = now->kind == TROUBLE_STOPPED || now->kind == TROUBLE_MADVISE;
    if (now->kind == TROUBLE_KILLED &&
        atomic_load(now->touched) > now->options->bytes / PAGE_BYTES * 3 / 4) {
        kill_it(now);
        now->kills++;
        start(now);
    }
    if (now->stop_at == 0 || ms < now->stop_at)
        return;
    now->stop_at = 0;
    if (stops)
        kill(now->pid, SIGSTOP);
    else if (now->kind == TROUBLE_FROZEN)
        put(held.freezer, "freezer.state", "FROZEN");
}

void trouble_end(struct trouble_now *now)
{
    if (now->kind == TROUBLE_FROZEN)
        put(held.freezer, "freezer.state", "THAWED");
    kill_it(now);
    munmap((void *)now->touched, PAGE_BYTES);
}
