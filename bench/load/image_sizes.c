// SPDX-License-Identifier: Apache-2.0
//
// image_sizes: what an image's size costs a VM that attaches, and a VM whose engine is killed.
#include <faultline_client.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

#include "bench/common/clock.h"
#include "bench/common/options.h"

enum { VMS_MAX = 1024, SETTLE_MS = 400 };

static int fail(const char *socket, int error)
{
    fprintf(stderr, "image_sizes: %s: %s\n", socket, strerror(-error));
    return 1;
}

static void print_since(uint64_t start_ns)
{
    printf("%.3f\n", (double)(bench_now_ns() - start_ns) / 1e6);
    fflush(stdout);
}

static void touch(const void *memory, uint64_t page)
{
    (void)*((const volatile uint8_t *)memory + page * FL_CLIENT_PAGE);
}

// The server is to see that the one before has gone: the next one opens the image anew.
static void settle(void)
{
    struct timespec pause = {.tv_nsec = SETTLE_MS * 1000000L};
    nanosleep(&pause, NULL);
}

static int attach(const char *socket, uint64_t bytes, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct fl_client *client = NULL;
        void *memory = NULL;
        uint64_t start = bench_now_ns();
        int error = fl_client_map(socket, bytes, FL_CLIENT_PAGE, &client, &memory);
        if (error)
            return fail(socket, error);
        touch(memory, 0);
        print_since(start);
        fl_client_close(client);
        settle();
    }
    return 0;
}

static int takeover(uint64_t bytes, char *const *sockets, unsigned count)
{
    static void *memory[VMS_MAX];
    static struct fl_client *client[VMS_MAX]; // they stay until the end
    char line[32];
    for (unsigned i = 0; i < count; i++) {
        int error = fl_client_map(sockets[i], bytes, FL_CLIENT_PAGE, &client[i], &memory[i]);
        if (error)
            return fail(sockets[i], error);
        touch(memory[i], 0);
    }
    printf("ready\n");
    fflush(stdout);
    for (uint64_t page = 1; fgets(line, sizeof(line), stdin); page++) {
        uint64_t start = bench_now_ns();
        if (kill((pid_t)strtol(line, NULL, 10), SIGKILL) != 0)
            return 1;
        touch(memory[0], page);
        touch(memory[count / 2], page);
        touch(memory[count - 1], page + VMS_MAX); // not the page of before, if it is one VM
        print_since(start);
    }
    return 0;
}

static uint64_t bytes;
static uint32_t attaches;
static struct bench_list sockets;
static const struct bench_option options[] = {
    {.name = "attaches",
     .value = "N",
     .number = &attaches,
     .low = 1,
     .high = 1000000,
     .otherwise = "measure take-overs",
     .help = "attach N times to the socket, one after the other: from the connection until the "
             "first page is there"},
    {.value = "BYTES", .large = &bytes, .required = true, .help = "of each image"},
    {.value = "SOCKET", .list = &sockets, .required = true, .help = "of an image"},
    BENCH_OPTIONS_END,
};
static const struct bench_command command = {
    .program = "image_sizes",
    .about =
        "Measures what an image's size costs a VM that attaches, and a VM whose engine is killed. "
        "Prints milliseconds, a line each. For take-overs it attaches a VM to each socket and "
        "prints \"ready\". Then it reads process ids. It kills each process, and measures until "
        "the first, the middle and the last VM have a page that they had not touched before.",
    .option = options,
};

int main(int argc, char **argv)
{
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    if (attaches && sockets.count > 1)
        return bench_options_refuse(&command, "--attaches takes one SOCKET");
    if (sockets.count > VMS_MAX)
        return bench_options_refuse(&command, "it takes %d sockets at most", VMS_MAX);
    return attaches ? attach(sockets.text[0], bytes, attaches)
                    : takeover(bytes, sockets.text, sockets.count);
}
