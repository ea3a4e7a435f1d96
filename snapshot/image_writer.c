// SPDX-License-Identifier: Apache-2.0
#include "snapshot/image_writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/image_file.h"
#include "snapshot/io.h"
#include "snapshot/publish.h"
#include "snapshot/stream.h"

struct fl_image_writer {
    struct fl_temp temp;
    struct fl_stream *map;
};

int fl_image_writer_new(int tmp_fd, struct fl_image_writer **ret_writer)
{
    struct fl_image_writer *writer = calloc(1, sizeof(*writer));
    if (!writer)
        return -ENOMEM;
    writer->temp.fd = -1;
    int r = fl_temp_create(tmp_fd, ".img", &writer->temp);
    if (r == 0)
        r = fl_stream_new(writer->temp.fd, sizeof(struct fl_disk_image_header), &writer->map);
    if (r < 0) {
        fl_image_writer_free(writer);
        return r;
    }
    *ret_writer = writer;
    return 0;
}

void fl_image_writer_free(struct fl_image_writer *writer)
{
    if (!writer)
        return;
    fl_temp_discard(&writer->temp);
    fl_stream_free(writer->map);
    free(writer);
}

int fl_image_writer_append(struct fl_image_writer *writer, const uint64_t *entries, uint64_t count)
{
    return fl_stream_append(writer->map, entries, count * sizeof(*entries));
}

int fl_image_writer_append_zero(struct fl_image_writer *writer, uint64_t count)
{
    static const uint64_t zeros[4096];
    const uint64_t most = sizeof(zeros) / sizeof(zeros[0]);
    int r = 0;
    while (r == 0 && count > 0) {
        uint64_t step = count < most ? count : most;
        r = fl_image_writer_append(writer, zeros, step);
        count -= step;
    }
    return r;
}

int fl_image_writer_publish(struct fl_image_writer *writer, struct fl_disk_image_header *header,
                            const uint64_t *pack_ids, int images_fd, bool replace,
                            uint64_t *ret_bytes)
{
    char file_name[FL_IMAGE_NAME_BYTES];
    int r = fl_image_file_name(header->name, file_name);
    if (r == 0)
        r = fl_stream_flush(writer->map);
    if (r < 0)
        return r;
    uint64_t table_at = sizeof(*header) + fl_stream_bytes(writer->map);
    size_t table_bytes = header->packs * sizeof(*pack_ids);
    memcpy(header->magic, fl_magic_image, sizeof(header->magic));
    header->version = FL_FORMAT_VERSION;
    header->map_checksum = fl_stream_checksum(writer->map);
    header->pack_table_checksum = fl_checksum(pack_ids, table_bytes);
    header->checksum = fl_checksum(header, offsetof(struct fl_disk_image_header, checksum));
    r = fl_pwrite_full(writer->temp.fd, pack_ids, table_bytes, table_at);
    if (r == 0)
        r = fl_pwrite_full(writer->temp.fd, header, sizeof(*header), 0);
    if (r == 0)
        r = fl_temp_publish(&writer->temp, images_fd, file_name, replace);
    if (r == 0)
        *ret_bytes = table_at + table_bytes;
    return r;
}
