// SPDX-License-Identifier: Apache-2.0
//
// bare_handler: the ceiling that the engine is measured against. It does only the work that every
// handler must do for a fault. Each VM has a thread. The thread reads messages in batches and
// answers each fault with a UFFDIO_COPY of one page, straight from the mapped memory file, all of
// which is in memory. It has no store, no checksums, no cache, no fairness and no limit. Do not use
// it for a guest (handler.h says why). Its arguments and its handshake are those of Firecracker's
// example handlers.
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "bench/common/clock.h"
#include "bench/common/options.h"
#include "bench/handlers/handler.h"

// Written before the first thread starts.
static uint64_t spin_ns;

static void serve(struct bench_vm *vm)
{
    struct pollfd fds[] = {{.fd = vm->uffd, .events = POLLIN}, {.fd = vm->sock, .events = POLLIN}};
    while (fds[1].revents == 0) {
        uint64_t idle_since = spin_ns > 0 ? bench_now_ns() : 0;
        do {
            while (bench_vm_serve_some(vm))
                idle_since = spin_ns > 0 ? bench_now_ns() : 0;
        } while (spin_ns > 0 && bench_now_ns() - idle_since < spin_ns);
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return;
    }
}

int main(int argc, char **argv)
{
    static const char *socket_path, *memory_file;
    static uint64_t spin_us;
    static const struct bench_option options[] = {
        {.name = "spin",
         .value = "US",
         .large = &spin_us,
         .high = 1000000000,
         .help = "read again and again for so many microseconds before it blocks"},
        {.value = "SOCKET", .text = &socket_path, .required = true, .help = "where VMs connect"},
        {.value = "MEMFILE",
         .text = &memory_file,
         .required = true,
         .help = "the raw memory that it serves"},
        BENCH_OPTIONS_END,
    };
    static const struct bench_command command = {
        .program = "bare_handler",
        .about = "Serves the faults of VMs with as little work as a fault can cost. Not for a "
                 "guest. Ends on SIGTERM and prints its CPU time.",
        .option = options,
    };
    int status = bench_options_parse(&command, argc, argv);
    if (status != BENCH_OPTIONS_GOOD)
        return status;
    spin_ns = spin_us * 1000;
    const struct bench_handler handler = {.name = command.program, .serve = serve};
    return bench_handler_run(&handler, socket_path, memory_file);
}
