// SPDX-License-Identifier: Apache-2.0
#include "tests/support/swap.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/swap.h>
#include <unistd.h>

#include "tests/support/temp.h"

static char swap[2 * TEST_PATH];
static int janitor[2] = {-1, -1}; // a pipe: its end tells the janitor that the test has ended

void swap_off(void)
{
    if (!swap[0])
        return;
    swapoff(swap);
    unlink(swap);
    swap[0] = '\0';
}

static void start_janitor(void)
{
    char byte;
    if (pipe2(janitor, O_CLOEXEC) != 0 || fork() != 0)
        return;
    setsid();
    close(janitor[1]);
    while (read(janitor[0], &byte, 1) > 0) {
    }
    swap_off();
    _exit(0);
}

bool swap_on(const char *path, uint64_t bytes)
{
    char command[3 * TEST_PATH];
    snprintf(swap, sizeof(swap), "%s", path);
    start_janitor();
    int fd = open(swap, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    bool made = fd >= 0 && posix_fallocate(fd, 0, (off_t)bytes) == 0;
    if (fd >= 0)
        close(fd);
    snprintf(command, sizeof(command), "mkswap %s >/dev/null 2>&1", swap);
    made = made && system(command) == 0 && swapon(swap, 0) == 0;
    if (!made)
        swap_off();
    return made;
}
