// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fd_store.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FIRST = 3, NAME_MAX_LENGTH = 255 };

static bool is_name(const char *name)
{
    size_t length = strlen(name);
    for (const char *c = name; *c; c++)
        if (*c < ' ' || *c > '~' || *c == ':')
            return false;
    return length > 0 && length <= NAME_MAX_LENGTH;
}

static bool has(const struct fd_store *store, int fd)
{
    pid_t self = getpid();
    for (size_t i = 0; i < store->count; i++)
        if (syscall(SYS_kcmp, self, self, KCMP_FILE, store->at[i].fd, fd) == 0)
            return true;
    return false;
}

static void append(struct fd_store *store, struct fd_stored stored)
{
    if (store->count == store->room) {
        store->room = store->room ? 2 * store->room : 16;
        store->at = realloc(store->at, store->room * sizeof *store->at);
        if (!store->at)
            abort();
    }
    store->at[store->count++] = stored;
}

enum fd_store_added fd_store_add(struct fd_store *store, size_t max, const char *name, int fd,
                                 bool watched)
{
    bool full = store->count >= max;
    if (full || has(store, fd)) {
        close(fd);
        return full ? FD_STORE_FULL : FD_STORE_TWICE;
    }
    char *kept = strdup(name && is_name(name) ? name : "stored");
    append(store, (struct fd_stored){.name = kept, .fd = fd, .watched = watched});
    return FD_STORE_ADDED;
}

static void let_go(struct fd_store *store, size_t i)
{
    close(store->at[i].fd);
    free(store->at[i].name);
    store->count--;
    memmove(store->at + i, store->at + i + 1, (store->count - i) * sizeof *store->at);
}

void fd_store_remove(struct fd_store *store, const char *name)
{
    for (size_t i = store->count; i-- > 0;)
        if (strcmp(store->at[i].name, name) == 0)
            let_go(store, i);
}

void fd_store_clear(struct fd_store *store)
{
    while (store->count)
        let_go(store, store->count - 1);
    free(store->at);
    *store = (struct fd_store){0};
}

size_t fd_store_count(const struct fd_store *store, const char *prefix)
{
    size_t count = 0;
    for (size_t i = 0; i < store->count; i++)
        count += strncmp(store->at[i].name, prefix, strlen(prefix)) == 0;
    return count;
}

int fd_store_find(const struct fd_store *store, const char *name)
{
    for (size_t i = 0; i < store->count; i++)
        if (strcmp(store->at[i].name, name) == 0)
            return store->at[i].fd;
    return -1;
}

unsigned fd_store_check(struct fd_store *store)
{
    unsigned gone = 0;
    for (size_t i = store->count; i-- > 0;) {
        struct pollfd p = {.fd = store->at[i].fd};
        if (!store->at[i].watched || poll(&p, 1, 0) != 1 || !(p.revents & (POLLHUP | POLLERR)))
            continue;
        let_go(store, i);
        gone++;
    }
    return gone;
}

char *fd_store_names(const struct fd_store *store)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        abort();
    fputs("LISTEN_FDNAMES=", out);
    for (size_t i = store->count; i-- > 0;)
        fprintf(out, "%s%s", store->at[i].name, i ? ":" : "");
    fclose(out);
    return text;
}

void fd_store_inherit(const struct fd_store *store)
{
    int end = FIRST + (int)store->count;
    // Out of the way first: a place to be filled may be that of another one.
    for (size_t i = 0; i < store->count; i++)
        if ((store->at[i].fd = fcntl(store->at[i].fd, F_DUPFD_CLOEXEC, end)) < 0)
            _exit(126);
    for (size_t i = 0; i < store->count; i++)
        if (dup2(store->at[store->count - 1 - i].fd, FIRST + (int)i) < 0)
            _exit(126);
    close_range((unsigned)end, ~0U, CLOSE_RANGE_CLOEXEC);
}
