// SPDX-License-Identifier: Apache-2.0
//
// The command line of the load generator.
#ifndef FAULTLINE_BENCH_LOAD_LOADGEN_OPTIONS_H
#define FAULTLINE_BENCH_LOAD_LOADGEN_OPTIONS_H

#include <stdint.h>
#include <time.h>

#include "bench/load/vm.h"

#define BENCH_SERVERS_MAX 8
#define BENCH_VMS_MAX 4096

// The CPU clocks of the server's processes.
struct bench_servers {
    uint32_t count;
    clockid_t clock[BENCH_SERVERS_MAX];
};

// Returns what bench_options_parse() returns.
int loadgen_options_parse(int argc, char **argv, struct load_options *ret_options,
                          struct bench_servers *ret_servers);

#endif
