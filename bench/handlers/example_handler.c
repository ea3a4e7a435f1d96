// SPDX-License-Identifier: Apache-2.0
//
// example_handler: a handler that follows Firecracker's example and goes no further. For each VM a
// loop polls, reads one message, and copies one page from the mapped memory file. Such handlers are
// usually processes, one for each VM; here they are threads of one process, which costs less. Do
// not use it for a guest (handler.h says why).
//
// With --record it writes the pages that the first VM touches, in order, as lines of PAGE MS. It
// leaves out pages that the VM has removed: the VM has touched them before.
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/common/options.h"
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
    static const char *socket_path, *memory_file, *record_file;
    static const struct bench_option options[] = {
        {.name = "record",
         .value = "FILE",
         .text = &record_file,
         .otherwise = "not kept",
         .help = "write the pages that the first VM touches, as lines of PAGE MS"},
        {.value = "SOCKET", .text = &socket_path, .required = true, .help = "where VMs connect"},
        {.value = "MEMFILE",
         .text = &memory_file,
         .required = true,
         .help = "the raw memory that it serves"},
        BENCH_OPTIONS_END,
    };
    static const struct bench_command command = {
        .program = "example_handler",
        .about = "Serves the faults of VMs as Firecracker's example does. Not for a guest. Ends "
                 "on SIGTERM and prints its CPU time.",
        .option = options,
    };
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    if (record_file && (recording = fopen(record_file, "we")) == NULL) {
        fprintf(stderr, "example_handler: %s: %s\n", record_file, strerror(errno));
        return 1;
    }
    const struct bench_handler handler = {.name = command.program, .serve = serve};
    return bench_handler_run(&handler, socket_path, memory_file);
}
