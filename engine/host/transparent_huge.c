// SPDX-License-Identifier: Apache-2.0
#include "engine/host/transparent_huge.h"

#include <string.h>
#include <sys/types.h>

#include "engine/host/procfs.h"

bool fl_transparent_huge_by_fault(void)
{
    char text[128];
    ssize_t got = fl_proc_read("/sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled", text,
                               sizeof(text));
    if (got <= 0) // before 6.8: one setting for all
        got = fl_proc_read("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof(text));
    return got > 0 && !strstr(text, "[never]");
}
