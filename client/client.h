// SPDX-License-Identifier: Apache-2.0
//
// The client's struct, and its beginning and end. Private to the library.
#ifndef FAULTLINE_CLIENT_CLIENT_H
#define FAULTLINE_CLIENT_CLIENT_H

#include <faultline_client.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// One thread at a time uses a client; its user takes care of that, so there is no lock. The client
// owns both descriptors, which are -1 until they are open. It owns the memory of its regions from
// the moment when a public call has returned it.
struct fl_client {
    int socket;
    int userfaultfd;
    uint32_t page_bytes;
    bool reserved; // the pool has set all of its pages aside
    size_t count;
    struct fl_client_region regions[FL_CLIENT_REGIONS_MAX];
};

// Makes a client with a copy of the regions and no descriptor. Returns NULL if there is no memory.
struct fl_client *fl_client_new(const struct fl_client_region *regions, size_t count,
                                uint32_t page_bytes);
// Ends a call that makes a client. If error is 0, sets *ret_client; otherwise closes the client's
// descriptors and frees it, but leaves its regions mapped. Returns error.
int fl_client_finish(struct fl_client *client, int error, struct fl_client **ret_client);

#endif
