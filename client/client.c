// SPDX-License-Identifier: Apache-2.0
#include "client/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/handshake.h"
#include "client/regions.h"

struct fl_client *fl_client_new(const struct fl_client_region *regions, size_t count)
{
    struct fl_client *client = malloc(sizeof(*client));
    if (!client)
        return NULL;
    *client = (struct fl_client){.socket = -1, .userfaultfd = -1, .count = count};
    memcpy(client->regions, regions, count * sizeof(*regions));
    return client;
}

static void close_descriptors(struct fl_client *client)
{
    if (client->userfaultfd >= 0)
        close(client->userfaultfd);
    if (client->socket >= 0)
        close(client->socket);
}

int fl_client_finish(struct fl_client *client, int error, struct fl_client **ret_client)
{
    if (error) {
        close_descriptors(client);
        free(client);
    } else {
        *ret_client = client;
    }
    return error;
}

int fl_client_hand_over(const char *socket_path, const struct fl_client_region *regions,
                        size_t count, uint32_t page_bytes, struct fl_client **ret_client)
{
    int error = fl_client_check_sizes(regions, count, page_bytes);
    if (!error)
        error = fl_client_check_places(regions, count, page_bytes);
    if (error)
        return error;
    struct fl_client *client = fl_client_new(regions, count);
    if (!client)
        return -ENOMEM;
    client->socket = fl_client_connect(socket_path);
    return fl_client_finish(
        client, client->socket < 0 ? client->socket : fl_client_attach(client, page_bytes),
        ret_client);
}

int fl_client_map_regions(const char *socket_path, struct fl_client_region *regions, size_t count,
                          uint32_t page_bytes, struct fl_client **ret_client)
{
    struct fl_client_region mapped[FL_CLIENT_REGIONS_MAX];
    int error = fl_client_check_sizes(regions, count, page_bytes);
    if (error)
        return error;
    memcpy(mapped, regions, count * sizeof(*regions));
    error = fl_client_map_memory(mapped, count, page_bytes);
    if (error)
        return error;
    error = fl_client_hand_over(socket_path, mapped, count, page_bytes, ret_client);
    if (error)
        fl_client_unmap_memory(mapped, count);
    else
        memcpy(regions, mapped, count * sizeof(*regions));
    return error;
}

int fl_client_map(const char *socket_path, uint64_t bytes, uint32_t page_bytes,
                  struct fl_client **ret_client, void **ret_address)
{
    struct fl_client_region region = {.bytes = bytes};
    int error = fl_client_map_regions(socket_path, &region, 1, page_bytes, ret_client);
    if (!error)
        *ret_address = region.address;
    return error;
}

// The memory is unmapped first: if it were still mapped when the last userfaultfd is closed, its
// missing pages would read as zeros.
void fl_client_close(struct fl_client *client)
{
    if (!client)
        return;
    fl_client_unmap_memory(client->regions, client->count);
    close_descriptors(client);
    free(client);
}
