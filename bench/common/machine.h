// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_BENCH_COMMON_MACHINE_H
#define FAULTLINE_BENCH_COMMON_MACHINE_H

#include <stdint.h>

// Time that all CPUs together were busy since boot, or taken from us by the host. What of it was
// neither the server's nor ours disturbed a measurement. It comes in hundredths of a second: rough
// for a short run. 0 if the kernel does not tell.
uint64_t bench_machine_busy_ns(void);

#endif
