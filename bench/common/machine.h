// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_BENCH_COMMON_MACHINE_H
#define FAULTLINE_BENCH_COMMON_MACHINE_H

#include <stdint.h>

// Returns how long all CPUs together were busy since boot, or taken away by the host. A part that
// neither the server nor the VMs used disturbed the measurement. The kernel counts hundredths of a
// second, which is rough for a short run. Returns 0 if the kernel does not tell.
uint64_t bench_machine_busy_ns(void);

#endif
