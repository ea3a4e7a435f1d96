// SPDX-License-Identifier: Apache-2.0
//
// drain_handler: few threads for many VMs, as a server on an asynchronous runtime has them. A
// thread for each CPU waits in epoll for its share of the VMs, and serves each one that has a fault
// until nothing is left to read: for as long as a VM goes on faulting, the others of that thread
// wait. The threads run at normal priority, on any CPU, and never spin. A fault is answered as
// bare_handler answers it. Do not use it for a guest (handler.h says why).
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "bench/common/options.h"
#include "bench/handlers/handler.h"

enum { EVENTS = 64 };

// A descriptor of a VM's that a thread waits for.
struct watch {
    struct client *client;
    bool is_socket;
};

struct client {
    struct bench_vm *vm;
    struct watch faults;
    struct watch end;
    struct client *next_gone; // the thread's that serves it
};

// Written before the first thread starts.
static unsigned threads;
static int *epoll_of; // each thread's

// Returns the VM if it has gone.
static struct client *serve_event(const struct watch *watch)
{
    while (!watch->is_socket && bench_vm_serve_some(watch->client->vm))
        continue;
    return watch->is_socket ? watch->client : NULL;
}

// A VM that has gone may still be named by an event of the same batch: it is freed behind it.
static void serve_events(const struct epoll_event *event, int count)
{
    struct client *gone = NULL;
    for (int i = 0; i < count; i++) {
        struct client *client = serve_event(event[i].data.ptr);
        if (client != NULL) {
            client->next_gone = gone;
            gone = client;
        }
    }
    while (gone != NULL) {
        struct client *next = gone->next_gone;
        bench_vm_free(gone->vm);
        free(gone);
        gone = next;
    }
}

static void *thread_main(void *arg)
{
    const int *epoll_fd = arg;
    struct epoll_event event[EVENTS];
    int count;
    while ((count = epoll_wait(*epoll_fd, event, EVENTS, -1)) >= 0 || errno == EINTR)
        serve_events(event, count);
    return NULL;
}

static int start_threads(void)
{
    cpu_set_t cpus;
    int err = sched_getaffinity(0, sizeof(cpus), &cpus) < 0 ? errno : 0;
    threads = err == 0 ? (unsigned)CPU_COUNT(&cpus) : 0;
    epoll_of = calloc(threads, sizeof(*epoll_of));
    if (epoll_of == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < threads && err == 0; i++) {
        pthread_t thread;
        epoll_of[i] = epoll_create1(EPOLL_CLOEXEC);
        err = epoll_of[i] < 0 ? errno : pthread_create(&thread, NULL, thread_main, &epoll_of[i]);
    }
    return -err;
}

static bool wait_for(int epoll_fd, int fd, uint32_t events, struct watch *watch)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

// The socket last: the thread frees the VM as soon as that has told.
static bool take(struct bench_vm *vm)
{
    static unsigned taken;
    int epoll_fd = epoll_of[taken++ % threads];
    struct client *client = calloc(1, sizeof(*client));
    if (client == NULL)
        return false;
    client->vm = vm;
    client->faults = (struct watch){.client = client};
    client->end = (struct watch){.client = client, .is_socket = true};
    bool good = wait_for(epoll_fd, vm->uffd, EPOLLIN | EPOLLET, &client->faults);
    // From here on the thread may have it: what fails now leaves it with a VM that never ends.
    if (good && !wait_for(epoll_fd, vm->sock, EPOLLRDHUP, &client->end))
        fprintf(stderr, "drain_handler: cannot see the end of a VM: %s\n", strerror(errno));
    if (!good)
        free(client);
    return good;
}

int main(int argc, char **argv)
{
    static const char *socket_path, *memory_file;
    static const struct bench_option options[] = {
        {.value = "SOCKET", .text = &socket_path, .required = true, .help = "where VMs connect"},
        {.value = "MEMFILE",
         .text = &memory_file,
         .required = true,
         .help = "the raw memory that it serves"},
        BENCH_OPTIONS_END,
    };
    static const struct bench_command command = {
        .program = "drain_handler",
        .about =
            "Serves the faults of VMs from a thread for each CPU, one VM until it has no more. "
            "Not for a guest. Ends on SIGTERM and prints its CPU time.",
        .option = options,
    };
    static const struct bench_handler handler = {.name = "drain_handler", .take = take};
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    int err = start_threads();
    if (err < 0) {
        fprintf(stderr, "drain_handler: cannot start its threads: %s\n", strerror(-err));
        return 1;
    }
    return bench_handler_run(&handler, socket_path, memory_file);
}
