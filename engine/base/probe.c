// SPDX-License-Identifier: Apache-2.0
#include "engine/base/probe.h"

// In this section tracers look for them.
#define FL_PROBE_DEFINE(name)                                                                      \
    volatile unsigned short faultline_##name##_semaphore __attribute__((section(".probes")));
FL_PROBES(FL_PROBE_DEFINE)
