// SPDX-License-Identifier: Apache-2.0
#include "tests/support/stop.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/server.h"

// 0 for a thread that has gone.
static char thread_state(pid_t pid, const char *thread)
{
    char path[320];
    char line[512] = "";
    snprintf(path, sizeof(path), "/proc/%d/task/%s/stat", (int)pid, thread);
    FILE *file = fopen(path, "re");
    bool read = file && fgets(line, sizeof(line), file);
    if (file)
        fclose(file);
    const char *end = strrchr(line, ')');
    return (char)(read && end ? end[2] : 0);
}

static bool has_stopped(void *arg)
{
    pid_t pid = *(pid_t *)arg;
    char path[64];
    bool stopped = true;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *threads = opendir(path);
    if (!threads)
        return false;
    for (const struct dirent *entry; stopped && (entry = readdir(threads));) {
        char state = entry->d_name[0] == '.' ? 0 : thread_state(pid, entry->d_name);
        stopped = state == 0 || strchr("TDZX", state);
    }
    closedir(threads);
    return stopped;
}

bool process_stop(pid_t pid)
{
    return kill(pid, SIGSTOP) == 0 && wait_until(has_stopped, &pid);
}
