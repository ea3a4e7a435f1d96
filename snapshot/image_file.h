// SPDX-License-Identifier: Apache-2.0
//
// An image file read into private memory and checked, its map excepted, of which the list of pieces
// is enough. Any thread; blocks on storage.
#ifndef FAULTLINE_SNAPSHOT_IMAGE_FILE_H
#define FAULTLINE_SNAPSHOT_IMAGE_FILE_H

#include "snapshot/format.h"

#define FL_IMAGE_SUFFIX ".img"
#define FL_IMAGE_NAME_BYTES (FL_NAME_MAX + sizeof(FL_IMAGE_SUFFIX))

struct fl_image_file {
    struct fl_disk_image_header header;
    struct fl_disk_map_piece *piece; // header.pieces, in order
    uint64_t *map;                   // of version 1: header.pages entries, from fl_map_memory
    uint64_t *pack_ids;              // header.packs entries
};

// The file name of an image. -EINVAL if the name may not name an image.
int fl_image_file_name(const char *name, char ret_file[FL_IMAGE_NAME_BYTES]);
// The image's name, if the file name is an image's and not, say, an editor's leftover. -EINVAL.
int fl_image_parse_file_name(const char *file, char ret_name[FL_NAME_MAX + 1]);
// The same of a file whose name is an image's and this suffix.
int fl_parse_file_name(const char *file, const char *suffix, char ret_name[FL_NAME_MAX + 1]);

// The header alone, verified against its checksum, the name and the file's size. name NULL: any
// that may name an image.
int fl_image_file_header(int fd, const char *name, struct fl_disk_image_header *ret_header);
// All of it but the pieces of the map. The checksum of a map of version 1 is verified here, entries
// are by fl_image_new, which has the packs. -EBADMSG, -EPROTONOSUPPORT, -ENOMEM, errors of reading.
// Release with fl_image_file_free.
int fl_image_file_load(int fd, const char *name, struct fl_image_file *ret_file);
// The pack table alone, header.packs entries, verified; free it. Errors likewise.
int fl_image_file_packs(int fd, const struct fl_disk_image_header *header, uint64_t **ret_ids);
void fl_image_file_free(struct fl_image_file *file);

#endif
