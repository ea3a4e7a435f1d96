// SPDX-License-Identifier: Apache-2.0
#include "snapshot/offer_head.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/io.h"

int fl_offer_file_name(const char *name, char ret_file[FL_OFFER_NAME_BYTES])
{
    if (!fl_name_valid(name))
        return -EINVAL;
    snprintf(ret_file, FL_OFFER_NAME_BYTES, "%s" FL_OFFER_SUFFIX, name);
    return 0;
}

int fl_offer_head_write(int fd, struct fl_disk_offer_head *head, const uint64_t *packs)
{
    size_t bytes = head->packs * sizeof(*packs);
    memcpy(head->magic, fl_magic_offer, sizeof(head->magic));
    head->version = FL_OFFER_VERSION;
    head->pack_table_checksum = fl_checksum(packs, bytes);
    head->checksum = fl_checksum(head, offsetof(struct fl_disk_offer_head, checksum));
    int r = fl_pwrite_full(fd, packs, bytes, sizeof(*head));
    return r < 0 ? r : fl_pwrite_full(fd, head, sizeof(*head), 0);
}

static bool head_valid(const struct fl_disk_offer_head *head, const char *name, uint64_t file_bytes)
{
    if (!memchr(head->name, '\0', sizeof(head->name)) || !fl_name_valid(head->name) ||
        (name && strcmp(head->name, name) != 0))
        return false;
    // In tmp/, and nowhere else.
    if (!memchr(head->pack_file, '\0', sizeof(head->pack_file)) || head->pack_file[0] == '\0' ||
        strchr(head->pack_file, '/'))
        return false;
    return head->packs >= 1 && head->packs <= FL_IMAGE_PACKS_MAX && head->bytes >= 1 &&
           head->bytes <= FL_IMAGE_BYTES_MAX &&
           head->pages == (head->bytes + FL_PAGE_SIZE - 1) / FL_PAGE_SIZE &&
           file_bytes == sizeof(*head) + (uint64_t)head->packs * sizeof(uint64_t);
}

static int read_packs(int fd, const struct fl_disk_offer_head *head, uint64_t *packs)
{
    size_t bytes = head->packs * sizeof(*packs);
    int r = fl_pread_full(fd, packs, bytes, sizeof(*head));
    if (r == 0 && fl_checksum(packs, bytes) != head->pack_table_checksum)
        r = -EBADMSG;
    for (uint32_t i = 0; r == 0 && i < head->packs; i++)
        r = packs[i] == 0 || packs[i] & FL_PACK_ID_RAW ? -EBADMSG : 0;
    return r;
}

int fl_offer_head_read(int fd, const char *name, struct fl_disk_offer_head *ret_head,
                       uint64_t **ret_packs)
{
    uint64_t file_bytes;
    int r = fl_read_header(fd, fl_magic_offer, FL_OFFER_VERSION, ret_head, sizeof(*ret_head),
                           &file_bytes);
    if (r == 0 && !head_valid(ret_head, name, file_bytes))
        r = -EBADMSG;
    if (r < 0 || !ret_packs)
        return r;
    uint64_t *packs = malloc(ret_head->packs * sizeof(*packs));
    r = packs ? read_packs(fd, ret_head, packs) : -ENOMEM;
    if (r < 0) {
        free(packs);
        return r;
    }
    *ret_packs = packs;
    return 0;
}
