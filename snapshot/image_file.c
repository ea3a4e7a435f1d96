// SPDX-License-Identifier: Apache-2.0
#include "snapshot/image_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/about.h"
#include "snapshot/io.h"

bool fl_name_valid(const char *name)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len = strspn(name, allowed);
    return len >= 1 && len <= FL_NAME_MAX && name[len] == '\0' && name[0] != '.' && name[0] != '-';
}

int fl_image_file_name(const char *name, char ret_file[FL_IMAGE_NAME_BYTES])
{
    if (!fl_name_valid(name))
        return -EINVAL;
    snprintf(ret_file, FL_IMAGE_NAME_BYTES, "%s" FL_IMAGE_SUFFIX, name);
    return 0;
}

int fl_parse_file_name(const char *file, const char *suffix, char ret_name[FL_NAME_MAX + 1])
{
    size_t end = strlen(suffix);
    size_t len = strlen(file);
    char name[FL_NAME_MAX + 1];
    if (len <= end || len - end > FL_NAME_MAX || strcmp(file + len - end, suffix) != 0)
        return -EINVAL;
    memcpy(name, file, len - end);
    name[len - end] = '\0';
    if (!fl_name_valid(name))
        return -EINVAL;
    memcpy(ret_name, name, len - end + 1);
    return 0;
}

int fl_image_parse_file_name(const char *file, char ret_name[FL_NAME_MAX + 1])
{
    return fl_parse_file_name(file, FL_IMAGE_SUFFIX, ret_name);
}

static bool header_named(const struct fl_disk_image_header *header, const char *name)
{
    if (name)
        return strncmp(header->name, name, sizeof(header->name)) == 0;
    return memchr(header->name, '\0', sizeof(header->name)) && fl_name_valid(header->name);
}

// The file must have the list, the pack table, and at least 8 bytes for each piece of the list.
static bool fits(const struct fl_disk_image_header *header, uint64_t file_bytes)
{
    uint64_t least = sizeof(*header) + (uint64_t)header->packs * 8 +
                     header->pieces * (sizeof(struct fl_disk_map_piece) + sizeof(uint64_t));
    return least <= file_bytes;
}

static bool header_valid(const struct fl_disk_image_header *header, const char *name,
                         uint64_t file_bytes)
{
    if (!header_named(header, name))
        return false;
    // Each number is bounded by the file's size before it is multiplied.
    if (header->bytes < 1 || header->bytes > FL_IMAGE_BYTES_MAX ||
        header->packs > FL_IMAGE_PACKS_MAX ||
        (header->version == 1 && header->pages > file_bytes / 8) ||
        (header->version != 1 && !fits(header, file_bytes)))
        return false;
    return header->pages == (header->bytes + FL_PAGE_SIZE - 1) / FL_PAGE_SIZE &&
           (header->version != 1 ||
            file_bytes == sizeof(*header) + header->pages * 8 + (uint64_t)header->packs * 8);
}

static uint64_t piece_bytes(uint64_t entries, uint64_t number)
{
    uint64_t left = entries - number * FL_PIECE_ENTRIES;
    return (left < FL_PIECE_ENTRIES ? left : FL_PIECE_ENTRIES) * sizeof(uint64_t);
}

static uint64_t list_bytes(const struct fl_disk_image_header *header)
{
    return header->pieces * sizeof(struct fl_disk_map_piece);
}

int fl_image_file_header(int fd, const char *name, struct fl_disk_image_header *ret_header)
{
    struct fl_disk_image_header header;
    uint64_t file_bytes;
    int r =
        fl_read_header(fd, fl_magic_image, FL_IMAGE_VERSION, &header, sizeof(header), &file_bytes);
    if (r < 0)
        return r;
    if (!header_valid(&header, name, file_bytes))
        return -EBADMSG;
    if (header.version == 1)
        header.pieces = 0;
    *ret_header = header;
    return 0;
}

// --- behind the pack table ---

size_t fl_image_about_bytes(const struct fl_disk_image_footer *footer)
{
    return footer->companions * sizeof(struct fl_disk_companion) + footer->label_bytes;
}

static bool footer_valid(const struct fl_disk_image_footer *footer)
{
    const char *end = memchr(footer->parent, '\0', sizeof(footer->parent));
    return footer->companions <= FL_COMPANIONS_MAX && footer->label_bytes <= FL_LABELS_BYTES_MAX &&
           footer->companion_pages <= FL_COMPANIONS_MAX * (FL_COMPANION_BYTES_MAX / FL_PAGE_SIZE) &&
           end && (end == footer->parent || fl_name_valid(footer->parent));
}

int fl_image_file_footer(int fd, const struct fl_disk_image_header *header,
                         struct fl_disk_image_footer *ret_footer)
{
    struct fl_disk_image_footer footer = {.companions = 0};
    uint64_t file_bytes;
    int r = header->version < 3 ? 0 : fl_file_size(fd, &file_bytes);
    if (r == 0 && header->version >= 3) {
        r = file_bytes < sizeof(*header) + sizeof(footer)
                ? -EBADMSG
                : fl_pread_full(fd, &footer, sizeof(footer), file_bytes - sizeof(footer));
        if (r == 0 && (fl_checksum(&footer, offsetof(struct fl_disk_image_footer, checksum)) !=
                           footer.checksum ||
                       !footer_valid(&footer)))
            r = -EBADMSG;
    }
    if (r == 0)
        *ret_footer = footer;
    return r;
}

static uint64_t behind_packs(const struct fl_disk_image_header *header,
                             const struct fl_disk_image_footer *footer)
{
    return header->version < 3 ? 0 : fl_image_about_bytes(footer) + sizeof(*footer);
}

int fl_image_file_about(int fd, const struct fl_disk_image_footer *footer, void **ret_about)
{
    uint64_t file_bytes;
    size_t bytes = fl_image_about_bytes(footer);
    *ret_about = NULL;
    if (bytes == 0)
        return 0;
    void *about = malloc(bytes);
    int r = about ? fl_file_size(fd, &file_bytes) : -ENOMEM;
    if (r == 0)
        r = file_bytes < bytes + sizeof(*footer)
                ? -EBADMSG
                : fl_pread_full(fd, about, bytes, file_bytes - sizeof(*footer) - bytes);
    if (r == 0 && fl_checksum(about, bytes) != footer->about_checksum)
        r = -EBADMSG;
    if (r < 0) {
        free(about);
        return r;
    }
    *ret_about = about;
    return 0;
}

// --- the map and the pack table ---

static int load_map(int fd, struct fl_image_file *file)
{
    size_t bytes = file->header.pages * sizeof(*file->map);
    file->map = fl_map_memory(bytes);
    if (!file->map)
        return -ENOMEM;
    int r = fl_pread_full(fd, file->map, bytes, sizeof(file->header));
    if (r < 0)
        return r;
    return fl_checksum(file->map, bytes) == file->header.map_checksum ? 0 : -EBADMSG;
}

// Each number must come once, in order, and be that of a piece of the image; together the pieces
// must be as long as the file says.
static bool list_valid(const struct fl_image_file *file, uint64_t list_at)
{
    const struct fl_disk_map_piece *piece = file->piece;
    uint64_t entries = file->header.pages + file->footer.companion_pages;
    uint64_t all = (entries - 1) / FL_PIECE_ENTRIES + 1;
    uint64_t at = sizeof(file->header);
    for (uint32_t i = 0; i < file->header.pieces; i++) {
        if (piece[i].number >= all || (i > 0 && piece[i].number <= piece[i - 1].number))
            return false;
        at += piece_bytes(entries, piece[i].number);
    }
    return at == list_at;
}

static int load_list(int fd, struct fl_image_file *file)
{
    uint64_t file_bytes = 0;
    size_t bytes = list_bytes(&file->header);
    uint64_t behind = bytes + (uint64_t)file->header.packs * sizeof(*file->pack_ids) +
                      behind_packs(&file->header, &file->footer);
    file->piece = malloc(bytes ? bytes : 1);
    int r = file->piece ? fl_file_size(fd, &file_bytes) : -ENOMEM;
    if (r == 0)
        r = file_bytes < behind ? -EBADMSG
                                : fl_pread_full(fd, file->piece, bytes, file_bytes - behind);
    if (r < 0)
        return r;
    bool right = fl_checksum(file->piece, bytes) == file->header.map_checksum &&
                 list_valid(file, file_bytes - behind);
    return right ? 0 : -EBADMSG;
}

static int read_packs(int fd, const struct fl_disk_image_header *header, uint64_t *ids)
{
    struct fl_disk_image_footer footer;
    uint64_t file_bytes = 0;
    size_t bytes = header->packs * sizeof(*ids);
    int r = fl_image_file_footer(fd, header, &footer);
    if (r == 0)
        r = fl_file_size(fd, &file_bytes);
    if (r < 0)
        return r;
    uint64_t behind = bytes + behind_packs(header, &footer);
    if (file_bytes < sizeof(*header) + behind)
        return -EBADMSG;
    r = fl_pread_full(fd, ids, bytes, file_bytes - behind);
    if (r < 0)
        return r;
    if (fl_checksum(ids, bytes) != header->pack_table_checksum)
        return -EBADMSG;
    for (uint32_t i = 0; i < header->packs; i++) {
        if (ids[i] == 0 || ids[i] & FL_PACK_ID_RAW)
            return -EBADMSG;
    }
    return 0;
}

int fl_image_file_packs(int fd, const struct fl_disk_image_header *header, uint64_t **ret_ids)
{
    size_t bytes = header->packs * sizeof(uint64_t);
    uint64_t *ids = malloc(bytes ? bytes : 1);
    int r = ids ? read_packs(fd, header, ids) : -ENOMEM;
    if (r < 0) {
        free(ids);
        return r;
    }
    *ret_ids = ids;
    return 0;
}

int fl_image_file_load(int fd, const char *name, struct fl_image_file *ret_file)
{
    struct fl_image_file file = {.map = NULL};
    int r = fl_image_file_header(fd, name, &file.header);
    if (r == 0)
        r = fl_image_file_footer(fd, &file.header, &file.footer);
    if (r == 0)
        r = file.header.version == 1 ? load_map(fd, &file) : load_list(fd, &file);
    if (r == 0)
        r = fl_image_file_packs(fd, &file.header, &file.pack_ids);
    if (r < 0) {
        fl_image_file_free(&file);
        return r;
    }
    *ret_file = file;
    return 0;
}

void fl_image_file_free(struct fl_image_file *file)
{
    fl_unmap(file->map, file->header.pages * sizeof(*file->map));
    free(file->piece);
    free(file->pack_ids);
    file->map = NULL;
    file->piece = NULL;
    file->pack_ids = NULL;
}
