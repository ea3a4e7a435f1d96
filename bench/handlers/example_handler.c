// SPDX-License-Identifier: Apache-2.0
//
// example_handler: what a handler is that follows Firecracker's example and goes no further: for
// each VM one loop that polls, reads one message, and copies one page from the mapped memory file.
// Where such handlers are processes, one a VM, here they are threads of one, which costs less, not
// more. Not to be used for a guest (handler.h).
//
// With --record it writes the pages that the first VM touches, in order, as lines of PAGE MS; pages
// that the VM has removed are not touched for the first time.
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/handlers/handler.h"

static FILE *recording; // the first VM's
static atomic_flag recorded = ATOMIC_FLAG_INIT;

static void record(FILE *to, const struct bench_vm *vm, uint64_t addr)
{
    const struct bench_region *region;
    uint64_t page;
    if (bench_vm_find(vm, addr, &region, &page) &&
        !region->removed[(addr - region->start) / vm->page_size])
        fprintf(to, "%" PRIu64 " %" PRIu64 "\n", page,
                (bench_now_ns() - vm->attached_ns) / 1000000u);
}

static void serve_fault(const struct bench_vm *vm, uint64_t addr, FILE *to)
{
    bench_count_faults(1);
    if (bench_vm_resolve(vm, addr) == BENCH_LATER)
        bench_vm_wake(vm, addr);
    else if (to != NULL)
        record(to, vm, addr);
}

static void serve_message(struct bench_vm *vm, FILE *to)
{
    struct uffd_msg msg;
    if (read(vm->uffd, &msg, sizeof(msg)) != sizeof(msg))
        return;
    if (msg.event == UFFD_EVENT_REMOVE)
        bench_vm_note_removed(vm, msg.arg.remove.start, msg.arg.remove.end);
    if (msg.event == UFFD_EVENT_PAGEFAULT)
        serve_fault(vm, msg.arg.pagefault.address, to);
}

static void serve(struct bench_vm *vm)
{
    struct pollfd fds[] = {{.fd = vm->uffd, .events = POLLIN}, {.fd = vm->sock, .events = POLLIN}};
    FILE *to = recording != NULL && !atomic_flag_test_and_set(&recorded) ? recording : NULL;
    while (fds[1].revents == 0 && (poll(fds, 2, -1) >= 0 || errno == EINTR)) {
        if (fds[0].revents != 0)
            serve_message(vm, to);
    }
    if (to != NULL)
        fflush(to);
}

int main(int argc, char **argv)
{
    int first = 1;
    if (argc == 5 && strcmp(argv[1], "--record") == 0) {
        recording = fopen(argv[2], "we");
        if (recording == NULL) {
            perror(argv[2]);
            return 1;
        }
        first = 3;
    }
    if (argc - first != 2) {
        fputs("usage: example_handler [--record FILE] SOCKET MEMFILE\n", stderr);
        return 2;
    }
    return bench_handler_run("example_handler", argv[first], argv[first + 1], serve);
}
