// SPDX-License-Identifier: Apache-2.0
//
// What a client is, inside the library.
#ifndef FAULTLINE_CLIENT_CLIENT_H
#define FAULTLINE_CLIENT_CLIENT_H

#include <faultline_client.h>
#include <stddef.h>
#include <stdint.h>

// One thread at a time (the caller sees to that). Both descriptors are the client's, -1 until they
// are open; the regions' memory is the client's once it has been returned to the caller.
struct fl_client {
    int socket;
    int userfaultfd;
    size_t count;
    struct fl_client_region regions[FL_CLIENT_REGIONS_MAX];
};

// A client of these regions with no descriptor yet; NULL without memory.
struct fl_client *fl_client_new(const struct fl_client_region *regions, size_t count);
// The end of a call that makes a client: *ret_client is the client if error is 0; otherwise it is
// freed with its descriptors, and its regions' memory stays as it is. Returns error.
int fl_client_finish(struct fl_client *client, int error, struct fl_client **ret_client);

#endif
