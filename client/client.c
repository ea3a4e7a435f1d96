// SPDX-License-Identifier: Apache-2.0
#include "client/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/handshake.h"
#include "client/regions.h"

struct fl_client *fl_client_new(const struct fl_client_region *regions, size_t count,
                                uint32_t page_bytes)
{
    struct fl_client *client = malloc(sizeof(*client));
    if (!client)
        return NULL;
    *client = (struct fl_client){
        .socket = -1, .userfaultfd = -1, .page_bytes = page_bytes, .count = count};
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

static int hand_over(const char *socket_path, const struct fl_client_region *regions, size_t count,
                     uint32_t page_bytes, bool reserved, struct fl_client **ret_client)
{
    int error = fl_client_check_sizes(regions, count, page_bytes);
    if (!error)
        error = fl_client_check_places(regions, count, page_bytes);
    if (error)
        return error;
    struct fl_client *client = fl_client_new(regions, count, page_bytes);
    if (!client)
        return -ENOMEM;
    client->reserved = reserved;
    client->socket = fl_client_connect(socket_path);
    return fl_client_finish(client, client->socket < 0 ? client->socket : fl_client_attach(client),
                            ret_client);
}

int fl_client_hand_over(const char *socket_path, const struct fl_client_region *regions,
                        size_t count, uint32_t page_bytes, struct fl_client **ret_client)
{
    return hand_over(socket_path, regions, count, page_bytes, false, ret_client);
}

// As FL_CLIENT_HUGE_IF_ROOM says. Without room in the pool, or where a region ends within a page of
// 2 MiB: pages of 4 KiB.
static int map_best(struct fl_client_region *regions, size_t count, uint32_t *ret_page_bytes)
{
    *ret_page_bytes = FL_CLIENT_HUGE_PAGE;
    if (fl_client_check_sizes(regions, count, FL_CLIENT_HUGE_PAGE) == 0 &&
        fl_client_map_memory(regions, count, FL_CLIENT_HUGE_PAGE, true) == 0)
        return 0;
    *ret_page_bytes = FL_CLIENT_PAGE;
    return fl_client_map_memory(regions, count, FL_CLIENT_PAGE, false);
}

int fl_client_map_regions(const char *socket_path, struct fl_client_region *regions, size_t count,
                          uint32_t page_bytes, struct fl_client **ret_client)
{
    struct fl_client_region mapped[FL_CLIENT_REGIONS_MAX];
    bool best = page_bytes == FL_CLIENT_HUGE_IF_ROOM;
    int error = fl_client_check_sizes(regions, count, best ? FL_CLIENT_PAGE : page_bytes);
    if (error)
        return error;
    memcpy(mapped, regions, count * sizeof(*regions));
    error = best ? map_best(mapped, count, &page_bytes)
                 : fl_client_map_memory(mapped, count, page_bytes, false);
    if (error)
        return error;
    error = hand_over(socket_path, mapped, count, page_bytes,
                      best && page_bytes == FL_CLIENT_HUGE_PAGE, ret_client);
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

uint32_t fl_client_page_bytes(const struct fl_client *client)
{
    return client->page_bytes;
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
