// SPDX-License-Identifier: Apache-2.0
//
// Reads an image file into private memory and checks it. Of a map of version 2 only the list of
// pieces is read. Any thread; blocks on storage.
#ifndef FAULTLINE_SNAPSHOT_IMAGE_FILE_H
#define FAULTLINE_SNAPSHOT_IMAGE_FILE_H

#include "snapshot/format.h"

#define FL_IMAGE_SUFFIX ".img"
#define FL_IMAGE_NAME_BYTES (FL_NAME_MAX + sizeof(FL_IMAGE_SUFFIX))

struct fl_image_file {
    struct fl_disk_image_header header;
    struct fl_disk_image_footer footer; // of an image before version 3: zero
    struct fl_disk_map_piece *piece;    // header.pieces, in order
    uint64_t *map;                      // of version 1: header.pages entries, from fl_map_memory
    uint64_t *pack_ids;                 // header.packs entries
};

// Returns the file name of an image. -EINVAL: no image may have this name.
int fl_image_file_name(const char *name, char ret_file[FL_IMAGE_NAME_BYTES]);
// Returns the image's name. -EINVAL: the file name is not that of an image, but, say, an editor's
// leftover.
int fl_image_parse_file_name(const char *file, char ret_name[FL_NAME_MAX + 1]);
// Does the same for a file name that consists of an image's name and this suffix.
int fl_parse_file_name(const char *file, const char *suffix, char ret_name[FL_NAME_MAX + 1]);

// Reads the header alone and verifies it against its checksum, the name and the file's size. If
// name is NULL any valid name will do.
int fl_image_file_header(int fd, const char *name, struct fl_disk_image_header *ret_header);
// Reads the whole file but the pieces of the map. Verifies the checksum of a map of version 1; its
// entries are verified by fl_image_new, which has the packs. -EBADMSG, -EPROTONOSUPPORT, -ENOMEM,
// errors of reading. Release it with fl_image_file_free.
int fl_image_file_load(int fd, const char *name, struct fl_image_file *ret_file);
// Reads and verifies the footer alone. Of an image that has none it is zero. Errors likewise.
int fl_image_file_footer(int fd, const struct fl_disk_image_header *header,
                         struct fl_disk_image_footer *ret_footer);
// Reads and verifies what stands before the footer: its companions, then its labels, of
// fl_image_about_bytes() bytes, to be freed. NULL if there are none. Errors likewise.
int fl_image_file_about(int fd, const struct fl_disk_image_footer *footer, void **ret_about);
size_t fl_image_about_bytes(const struct fl_disk_image_footer *footer);
// Reads and verifies the pack table alone: header.packs entries, to be freed. Errors likewise.
int fl_image_file_packs(int fd, const struct fl_disk_image_header *header, uint64_t **ret_ids);
void fl_image_file_free(struct fl_image_file *file);

#endif
