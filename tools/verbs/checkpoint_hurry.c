// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/checkpoint_hurry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/resource.h>
#include <unistd.h>

enum { HASTE = 10 }; // steps of nice

// To wake a CPU from a deep sleep takes 0.1 ms and more, also of a host that is a virtual machine
// (Documentation/power/pm_qos_interface.rst).
static int keep_cpus_awake(void)
{
    const int32_t most_us = 0;
    int fd = open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, &most_us, sizeof(most_us)) != sizeof(most_us)) {
        close(fd);
        return -1;
    }
    return fd;
}

void hurry_begin(struct hurry *hurry)
{
    id_t thread = (id_t)gettid();
    errno = 0;
    *hurry = (struct hurry){.latency = keep_cpus_awake()};
    hurry->nice = getpriority(PRIO_PROCESS, thread);
    hurry->begun = true;
    setpriority(PRIO_PROCESS, thread, hurry->nice - HASTE);
}

void hurry_end(struct hurry *hurry)
{
    if (!hurry->begun)
        return;
    if (hurry->latency >= 0)
        close(hurry->latency);
    setpriority(PRIO_PROCESS, (id_t)gettid(), hurry->nice);
    hurry->begun = false;
}
