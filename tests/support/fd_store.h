// SPDX-License-Identifier: Apache-2.0
//
// Descriptors kept by name, as systemd's fd store keeps them. One thread at a time.
#ifndef FAULTLINE_TESTS_SUPPORT_FD_STORE_H
#define FAULTLINE_TESTS_SUPPORT_FD_STORE_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>

struct fd_store {
    size_t count, room;
    struct fd_stored {
        char *name;
        int fd;
        bool watched; // let go when it hangs up
    } * at;
};

enum fd_store_added { FD_STORE_ADDED, FD_STORE_TWICE, FD_STORE_FULL };

// Owns fd from now on, and closes it if it does not keep it. A name that systemd would not take
// becomes "stored"; names need not be unique, but a description is kept once only.
enum fd_store_added fd_store_add(struct fd_store *store, size_t max, const char *name, int fd,
                                 bool watched);
void fd_store_remove(struct fd_store *store, const char *name); // all of this name
void fd_store_clear(struct fd_store *store);
size_t fd_store_count(const struct fd_store *store, const char *prefix);
int fd_store_find(const struct fd_store *store, const char *name); // -1: none

// Lets go what is watched and has hung up. How many.
unsigned fd_store_check(struct fd_store *store);

// LISTEN_FDNAMES=..., to be freed. systemd hands the store out from the newest to the oldest.
char *fd_store_names(const struct fd_store *store);
// In a forked child: the store's descriptors become 3, 4, ... in that order, all above is
// close-on-exec. No memory is allocated.
void fd_store_inherit(const struct fd_store *store);

#endif
