#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A process whose first thread has ended looks empty in /proc/PID, and reading it is no error.
#
# Guess: /proc/PID/maps and /proc/PID/fd show the process as long as it lives, whichever of its threads still run.
# Seen on Linux 6.18 (x86-64): the first thread calls pthread_exit(), another goes on. Then /proc/PID/maps reads as 0
#   bytes, /proc/PID/fd as an empty directory, both without an error; /proc/PID/exe is gone; process_vm_readv(),
#   pidfd_getfd() and a read of /proc/PID/pagemap give ESRCH. /proc/TID/maps and /proc/TID/fd of the live thread, which
#   no listing of /proc shows, have everything.
# So: whoever searches /proc for the holder of a mapping or a descriptor must look at the threads in /proc/PID/task when
#   the process's state is Z.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/leader.c" <<'C'
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static char word[8] = "hello";

static void *live_on(void *unused)
{
    (void)unused;
    pause();
    return NULL;
}

static long bytes_of(int pid, const char *name)
{
    char path[64], buffer[4096];
    long total = 0, got;
    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return -errno;
    while ((got = read(fd, buffer, sizeof(buffer))) > 0)
        total += got;
    if (got < 0)
        total = -errno;
    close(fd);
    return total;
}

static long entries_of(int pid, const char *name)
{
    char path[64];
    long count = 0;
    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    DIR *directory = opendir(path);
    if (!directory)
        return -errno;
    for (struct dirent *entry; (entry = readdir(directory));)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

static int is_zombie(int pid)
{
    char path[64], line[512] = "";
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (file && !fgets(line, sizeof(line), file))
        line[0] = '\0';
    if (file)
        fclose(file);
    return strstr(line, ") Z ") != NULL;
}

static int live_thread(int pid)
{
    char path[64];
    int found = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        if (atoi(entry->d_name) > 0 && atoi(entry->d_name) != pid)
            found = atoi(entry->d_name);
    if (directory)
        closedir(directory);
    return found;
}

int main(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, live_on, NULL);
        pthread_exit(NULL);
    }
    for (int i = 0; i < 5000 && !is_zombie(pid); i++)
        usleep(1000);
    char copy[8];
    struct iovec to = {copy, sizeof(copy)}, from = {word, sizeof(word)};
    long read = process_vm_readv(pid, &to, 1, &from, 1, 0) < 0 ? -errno : 0;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    long taken = syscall(SYS_pidfd_getfd, pidfd, 0, 0) < 0 ? -errno : 0;
    int thread = live_thread(pid);
    printf("leader: maps %ld bytes, fd %ld entries, process_vm_readv %ld, pidfd_getfd %ld\n",
           bytes_of(pid, "maps"), entries_of(pid, "fd"), read, taken);
    printf("thread: maps %s, fd %s\n", bytes_of(thread, "maps") > 0 ? "shown" : "empty",
           entries_of(thread, "fd") > 0 ? "shown" : "empty");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return 0;
}
C
gcc -pthread -o "$dir/leader" "$dir/leader.c"
"$dir/leader" | tee "$dir/out"
diff - "$dir/out" <<'OUT'
leader: maps 0 bytes, fd 0 entries, process_vm_readv -3, pidfd_getfd -3
thread: maps shown, fd shown
OUT
