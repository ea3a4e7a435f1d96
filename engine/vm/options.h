// SPDX-License-Identifier: Apache-2.0
//
// The options of an engine. They are constant once it has started, so that any thread may read
// them.
#ifndef FAULTLINE_VM_OPTIONS_H
#define FAULTLINE_VM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/vm/choices.h"

// What is done about a VM that will need more pages of 2 MiB than there are (admission.h).
enum fl_admission { FL_ADMISSION_OFF, FL_ADMISSION_WARN, FL_ADMISSION_REFUSE };

struct fl_engine_options {
    unsigned workers; // threads that serve; 0: one a core that we may run on
    unsigned readers; // threads that read and decompress; 0: as many, at least 4
    uint64_t cache_bytes;
    uint64_t prealloc_bytes; // of the memory for it: taken when the engine begins to serve
    uint64_t template_bytes; // of the memory of all templates; 0: a half of the host's
    uint64_t capture_bytes;  // copied by captures and not packed yet, of all; 0: by what is free
    unsigned read_retries;
    uint64_t read_timeout_ms;      // after which a page that is still being read is given up
    uint64_t handshake_timeout_ms; // for a peer to say what it wants
    uint64_t stop_timeout_ms;      // for VMs to be filled at the end, before they are killed
    unsigned spin_us;              // how long a worker looks for the next fault before it blocks
    unsigned prefetch_pages;    // installed at once in a sequential sweep; less than 2: none ahead
    uint64_t prefetch_vm_bytes; // of a VM that were installed ahead and may be in vain, at most
    uint64_t prefetch_host_bytes; // ... of all VMs
    int nice; // of the workers' threads; without the right to it they stay as they are
    bool pin; // each worker to a core
    enum fl_policy on_error;     // the default policy
    bool replay;                 // stream working sets in ahead of touches, where there is a trace
    uint64_t replay_bytes;       // of each VM at most; 0: no bound
    unsigned replay_reserve;     // percent of the host's memory that replay leaves alone
    enum fl_huge huge;           // never FL_HUGE_DEFAULT
    enum fl_admission admission; // of VMs with pages of 2 MiB that the pool cannot hold
    bool allow_part;             // take VMs that have a part of their image only
    const char *config;          // the configuration file; NULL: none
    const char *config_waits;    // options that were changed there and wait for a restart: "a b"
    unsigned history;            // keep the histories of so many VMs (histories.h)
    bool populate;               // fill all memory of a VM once it faults
    // Called in a worker's thread when a VM's memory was filled. NULL: not wanted.
    void (*filled)(uint64_t vm_id, uint64_t ns);
};

extern const struct fl_engine_options fl_engine_defaults;

#endif
