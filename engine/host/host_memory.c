// SPDX-License-Identifier: Apache-2.0
#include "engine/host/host_memory.h"

#include <inttypes.h>
#include <stdio.h>

#include "engine/base/clock.h"
#include "engine/base/log.h"

#define LOOK_EVERY (250 * FL_NS_PER_MS)
#define WANTED_FOR FL_NS_PER_S // before the worker that wants it shows itself

static bool is_below(uint64_t available, uint64_t total, unsigned percent)
{
    return total > 0 && available < total / 100 * percent;
}

// In KiB; 0 if it is not known.
static void read_meminfo(uint64_t *ret_total, uint64_t *ret_available)
{
    char line[128];
    *ret_total = 0;
    *ret_available = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    if (!file)
        return;
    while (*ret_available == 0 && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "MemTotal: %" SCNu64, ret_total) != 1)    // NOLINT(cert-err34-c)
            sscanf(line, "MemAvailable: %" SCNu64, ret_available); // NOLINT(cert-err34-c)
    }
    fclose(file);
}

bool fl_host_memory_is_scarce(unsigned reserve)
{
    uint64_t total;
    uint64_t available;
    read_meminfo(&total, &available);
    return is_below(available, total, reserve);
}

uint64_t fl_host_memory_available(void)
{
    uint64_t total;
    uint64_t available;
    read_meminfo(&total, &available);
    return available << 10;
}

static uint64_t read_huge(const char *name)
{
    char path[96];
    uint64_t number = 0;
    snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-2048kB/%s", name);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    if (fscanf(file, "%" SCNu64, &number) != 1) // NOLINT(cert-err34-c)
        number = 0;
    fclose(file);
    return number;
}

static void note_scarcity(_Atomic bool *scarce, bool is, const char *what)
{
    if (*scarce == is)
        return;
    if (is)
        fl_log(FL_LOG_WARNING, "event=replay_paused reason=\"%s are scarce\"", what);
    else
        fl_log(FL_LOG_INFO, "event=replay_resumed reason=\"%s are there again\"", what);
    *scarce = is;
}

static void look_at_memory(struct fl_host_memory *memory, uint64_t now)
{
    memory->looked_ns = now;
    // Pages of 2 MiB may be few: the share is rounded up.
    uint64_t kept = (read_huge("nr_hugepages") * memory->reserve + 99) / 100;
    note_scarcity(&memory->scarce, fl_host_memory_is_scarce(memory->reserve), "pages of 4 KiB");
    note_scarcity(&memory->huge_scarce, read_huge("free_hugepages") < kept, "pages of 2 MiB");
}

void fl_host_memory_wanted(struct fl_host_memory *memory, uint64_t now)
{
    memory->wanted_ns = now;
    if (now - memory->looked_ns >= LOOK_EVERY)
        look_at_memory(memory, now);
}

static bool still_wanted(const struct fl_host_memory *memory, bool wanted, uint64_t now)
{
    return wanted || (memory->wanted_ns > 0 && now - memory->wanted_ns < WANTED_FOR);
}

void fl_host_memory_run(struct fl_host_memory *memory, bool wanted, uint64_t now)
{
    if (still_wanted(memory, wanted, now) && now - memory->looked_ns >= LOOK_EVERY)
        look_at_memory(memory, now);
}

uint64_t fl_host_memory_next_due(const struct fl_host_memory *memory, bool wanted, uint64_t now)
{
    return still_wanted(memory, wanted, now) ? memory->looked_ns + LOOK_EVERY : FL_NEVER;
}
