// SPDX-License-Identifier: Apache-2.0
//
// What an image's size costs those who attach to it, and who waits when an engine has been killed.
// Prints milliseconds, a line each.
//
// usage: image_sizes attach SOCKET BYTES COUNT
//        image_sizes takeover BYTES SOCKET...
// The first attaches COUNT times, one after the other: from the connection until the first page is
// there. The second attaches to all sockets, says so (a line "ready"), and for each process id that
// it reads it kills that process and touches a page that was not touched before, of the first, the
// middle and the last VM: until all three are there.
#include <faultline_client.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

#include "bench/common/clock.h"

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

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "attach") == 0)
        return attach(argv[2], strtoull(argv[3], NULL, 10), (unsigned)strtoul(argv[4], NULL, 10));
    if (argc >= 4 && argc - 3 <= VMS_MAX && strcmp(argv[1], "takeover") == 0)
        return takeover(strtoull(argv[2], NULL, 10), argv + 3, (unsigned)argc - 3);
    fputs("usage: image_sizes attach SOCKET BYTES COUNT\n"
          "       image_sizes takeover BYTES SOCKET...\n",
          stderr);
    return 2;
}
