// SPDX-License-Identifier: Apache-2.0
#include "engine/host/huge_pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

#include "engine/host/procfs.h"

static uint64_t read_number(const char *name)
{
    char path[96];
    char text[32];
    snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-2048kB/%s", name);
    return fl_proc_read(path, text, sizeof(text)) > 0 ? strtoull(text, NULL, 10) : 0;
}

struct fl_huge_pool fl_huge_pool_read(void)
{
    return (struct fl_huge_pool){.total = read_number("nr_hugepages"),
                                 .free = read_number("free_hugepages"),
                                 .reserved = read_number("resv_hugepages"),
                                 .surplus = read_number("surplus_hugepages")};
}
