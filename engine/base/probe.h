// SPDX-License-Identifier: Apache-2.0
//
// Probes on the life of a fault, for bpftrace, perf and SystemTap (docs/tracing.md): USDT, provider
// `faultline`. A probe that no tracer is attached to is a load of its semaphore and a branch that
// is not taken; its arguments are not made. Any thread.
#ifndef FAULTLINE_BASE_PROBE_H
#define FAULTLINE_BASE_PROBE_H

// What the headers of SystemTap ask for: a semaphore for each probe, any number of arguments.
#define _SDT_HAS_SEMAPHORES 1
#define SDT_USE_VARIADIC 1
#include <sys/sdt.h>

// NAME: its arguments are in docs/tracing.md, which tests/probes compares with the program.
#define FL_PROBES(PROBE)                                                                           \
    PROBE(fault_read)                                                                              \
    PROBE(fault_parked)                                                                            \
    PROBE(fault_unparked)                                                                          \
    PROBE(fault_resolved)                                                                          \
    PROBE(load_start)                                                                              \
    PROBE(load_done)                                                                               \
    PROBE(install)                                                                                 \
    PROBE(wake)                                                                                    \
    PROBE(poison)                                                                                  \
    PROBE(replay_row)                                                                              \
    PROBE(replay_late)                                                                             \
    PROBE(evict)                                                                                   \
    PROBE(attach)                                                                                  \
    PROBE(detach)                                                                                  \
    PROBE(takeover_begin)                                                                          \
    PROBE(takeover_end)

// The kernel counts here how many tracers are attached.
#define FL_PROBE_DECLARE(name)                                                                     \
    extern volatile unsigned short faultline_##name##_semaphore                                    \
        __attribute__((visibility("hidden")));
FL_PROBES(FL_PROBE_DECLARE)

// The macros of the header use what clang calls an extension of GNU.
#ifdef __clang__
#pragma clang diagnostic ignored "-Wgnu-zero-variadic-macro-arguments"
#endif
#define FL_PROBE_ON(name) (__builtin_expect(faultline_##name##_semaphore, 0))
#define FL_PROBE(name, ...)                                                                        \
    do {                                                                                           \
        if (FL_PROBE_ON(name))                                                                     \
            STAP_PROBEV(faultline, name, __VA_ARGS__);                                             \
    } while (0)

#endif
