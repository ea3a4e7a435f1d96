// SPDX-License-Identifier: Apache-2.0
#include "engine/vm/options.h"

#include "snapshot/read.h"

const struct fl_engine_options fl_engine_defaults = {
    .cache_bytes = 1ULL << 30,
    .read_retries = 4,
    .on_error = FL_POLICY_AUTO,
    .read_timeout_ms = 30000,
    .handshake_timeout_ms = 5000,
    .stop_timeout_ms = 60000,
    .replay = true,
    .replay_reserve = 5,
    .spin_us = 20,
    .prefetch_pages = FL_FRAME_PAGES,
    .prefetch_vm_bytes = 16ULL << 20,
    .prefetch_host_bytes = 1ULL << 30,
    .nice = 0,
    .huge = FL_HUGE_OFF,
    .admission = FL_ADMISSION_WARN,
};
